"""What equal means for answers: LaTeX read, numbers and units compared, algebra in locked-down workers."""
