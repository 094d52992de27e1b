"""Labelled pairs (gold, answer), each by hand: what a mathematician marking papers accepts and refuses."""

from __future__ import annotations

EQUAL: list[tuple[str, str]] = [
    # integers: separators, signs, spellings
    ("5", "5"), ("1234", "1,234"), ("1234567", "1,234,567"), ("10000", r"10{,}000"), ("10000", r"10,\!000"),
    ("12345", "12 345"), ("12345", r"12\,345"), ("5", "+5"), ("-7", "−7"), ("5", "5.0"), ("1", "1.0"),
    ("0", "-0"), ("5", "05"), ("72", "72."), ("72", "$72$"), ("72", r"\(72\)"), ("5", r"{5}"), ("5", "(5)"),
    ("27.0", "27"), ("100,200", "100200"), ("3,4", "3, 4"),
    # powers, scientific notation
    ("1024", "2^{10}"), ("8", "2^3"), ("1500", r"1.5 \times 10^3"), ("1500", r"1.5\cdot 10^{3}"),
    ("0.0012", r"1.2 \times 10^{-3}"), ("1500", "1.5e3"), ("2^{2010}", "2^{2010}"), ("x^{10}", "x^{4} x^{6}"),
    # fractions, decimals, mixed numbers
    (r"\frac{1}{2}", "0.5"), (r"\frac12", "1/2"), (r"\frac{1}{2}", r"\dfrac{1}{2}"),
    (r"\frac{1}{2}", r"\tfrac12"), (r"\frac{14}{3}", "14/3"), (r"-\frac{1}{2}", r"\frac{-1}{2}"),
    (r"-\frac{1}{2}", r"\frac{1}{-2}"), (r"\frac{2}{4}", r"\frac{1}{2}"), (r"\frac{3}{2}", r"1\frac{1}{2}"),
    (r"\frac{3}{2}", "1 1/2"), (r"-\frac{3}{2}", r"-1\frac12"), ("0.25", ".25"), ("0.125", r"\frac18"),
    (r"\frac{1}{3}", r"0.\overline{3}"), (r"\frac{7}{2}", "3.5"), (r"\frac{\pi}{2}", r"\frac{1}{2}\pi"),
    (r"\frac{1}{2}", "½"),
    # roots
    (r"\sqrt{2}", r"\sqrt2"), (r"\sqrt{8}", r"2\sqrt{2}"), (r"\frac{1}{\sqrt{2}}", r"\frac{\sqrt{2}}{2}"),
    (r"\sqrt{2}", "2^{1/2}"), (r"\sqrt{2}", "2^{0.5}"), (r"2\sqrt{3}", r"\sqrt{12}"), (r"\sqrt[3]{8}", "2"),
    (r"3\sqrt{2}+1", r"1+3\sqrt 2"), (r"\sqrt{2}", "√2"),
    # percent
    (r"12.5\%", "12.5"), ("12.5", r"12.5\%"), (r"12.5\%", "0.125"), (r"50\%", r"\frac{1}{2}"),
    ("50", "50 percent"), (r"25\%", "25%"), ("25", r"25\text{ percent}"),
    # units and currency
    ("9", "9 eggs"), ("9", r"9\text{ eggs}"), (r"9\text{ eggs}", "9"), (r"5\text{ m}", "5 m"), ("5", "5 cm"),
    (r"5\text{ cm}^2", "5"), (r"5\text{ cm}^2", r"5\text{ square centimeters}"), ("18", r"\$18"),
    ("18", "$18"), (r"\$18", "18 dollars"), (r"\$1,250.50", "1250.5"), ("60", "60 mph"),
    (r"60\text{ miles per hour}", "60"), (r"10\sqrt{3}\text{ cm}", r"10\sqrt{3}"),
    (r"16\pi", r"16\pi \text{ square inches}"), ("5", "5cm"), ("9", "9 duck eggs"),
    (r"9\text{ duck eggs}", "9 eggs"), (r"15\mbox{ cm}^2", "15"), ("7", r"7 \text{ days}"),
    # degrees
    ("30", r"30^\circ"), (r"30^{\circ}", "30"), (r"30^\circ", "30°"), ("30", "30 degrees"),
    (r"\frac{45}{2}", r"22.5^\circ"), (r"45^\circ", r"45\text{ degrees}"),
    # intervals, inequalities, unions
    ("[2,5)", "[2, 5)"), ("[2,5)", r"2\le x<5"), ("[2,5)", r"2 \leq x < 5"), (r"(-\infty, 3)", "x<3"),
    (r"(3,\infty)", r"3 < x"), (r"[3,\infty)", r"x \geq 3"), ("[2,5)", r"\left[2,5\right)"),
    ("[2,5)", r"x\in[2,5)"), (r"(0,\frac{1}{2}]", "(0, 0.5]"), (r"(1,2)\cup(3,4)", r"(3,4)\cup(1,2)"),
    (r"(0,1]\cup(1,2)", "(0,2)"), (r"x\in(1,2)\cup(3,4)", r"(1,2) \cup (3,4)"), (r"5 > x \ge 2", r"2\le x<5"),
    (r"(-\infty,\infty)", r"\mathbb{R}"), (r"\mathbb{R}", r"\text{all real numbers}"),
    (r"(-\infty,2)\cup(2,\infty)", r"x \ne 2"), (r"[0,+\infty)", r"[0,\infty)"),
    # sets, lists, plus-minus
    (r"\{1,2,3\}", r"\{3, 1, 2\}"), ("1,2", "2,1"), ("1,2", "1 and 2"), ("1,2,3", "1, 2, and 3"),
    (r"\{1,2\}", "2, 1"), ("1, 2", r"x=1 \text{ or } x=2"), (r"\pm 2", "2, -2"), (r"-2, 2", r"\pm 2"),
    (r"3\pm\sqrt{2}", r"3-\sqrt2, 3+\sqrt2"), (r"x=\pm 2", r"\pm 2"), (r"\emptyset", r"\varnothing"),
    (r"\{5\}", "5"), (r"\{\frac12, 3\}", r"\{3, 0.5\}"), ("-1, 1", "1;-1"),
    # tuples, vectors, matrices
    ("(1,2)", "(1, 2)"), (r"(3,\frac{\pi}{2})", r"\left( 3, \frac{\pi}{2} \right)"),
    ("(0.5, 2)", r"(\frac12,2)"), ("(1,2)", "(x,y)=(1,2)"), ("(1,2,3)", r"\langle 1,2,3\rangle"),
    ("(1,2,3)", "1, 2, 3"),
    (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\begin{bmatrix} 1 & 2 \\ 3 & 4 \end{bmatrix}"),
    (r"\begin{pmatrix}-1\\6\end{pmatrix}", "(-1,6)"),
    (r"\begin{pmatrix}1/2&0\\0&1\end{pmatrix}", r"\begin{pmatrix}0.5&0\\0&1\end{pmatrix}"),
    (r"(x,y) = (1,2)", "x=1, y=2"),
    # expressions
    ("x+1", "1+x"), ("2x+2", "2(x+1)"), ("(x+1)^2", "x^2+2x+1"), ("p - q", "-q+p"), (r"\frac{x}{2}", "0.5x"),
    (r"\sin^2 x", r"1-\cos^2 x"), ("xy", "yx"), (r"e^{2x}", r"(e^x)^2"), (r"\log_2 8", "3"),
    (r"\binom{5}{2}", "10"), ("5!", "120"), (r"2^{n+1}", r"2\cdot 2^n"), (r"|x-1|", r"|1-x|"),
    (r"3x^2y-7", r"-7+3yx^2"), (r"\pi r^2", r"r^2\pi"), (r"\frac{n(n+1)}{2}", r"\frac{n^2+n}{2}"),
    ("6 - 5i", "-5i+6"), (r"\tan 45^\circ", r"\tan 45^\circ"),
    # equations
    ("5", "x=5"), ("x=5", "5"), ("y=2x+1", "y = 1+2x"), ("y=2x+1", "2x+1"), ("x^2+y^2=1", "x^2+y^2-1=0"),
    ("5", "2+3=5"), ("5", "5 = x"), ("30", r"\angle ABC = 30^\circ"), ("x=1,y=2", "y=2, x=1"),
    (r"f(x)=x^2", "x^2"), (r"\frac12", r"P(A)=\frac{1}{2}"), (r"\sqrt{2}", r"\sqrt{2}\approx 1.414"),
    # choices and words
    ("C", "C."), ("C", r"\text{C}"), ("C", "(C)"), ("C", r"\textbf{(C)}"), ("C", "(C) 42"),
    (r"\text{(C)}", "C"), (r"\text{even}", "even"), ("even", "Even."), (r"\text{Evelyn}", "Evelyn"),
    ("no solution", r"\text{No solution}"), ("the ellipse", "ellipse"), (r"\text{red, blue}", "blue, red"),
    (r"\text{Monday}", r"\textbf{Monday}"),
    # bases
    ("1210_3", "1210_{3}"), ("2516_8", "2516"), (r"101_2", r"101_{\text{2}}"), ("101_2", "101 (base 2)"),
    ("5", "101_2"), ("3:2", "3:2"),
    # complex numbers, written names
    ("2i", "(1+i)^2"), ("-1", "i^2"), ("S = \\{1,2\\}", "2, 1"), ("Odd", "odd"), ("yes", r"\text{Yes}"),
]  # fmt: skip

UNEQUAL: list[tuple[str, str]] = [
    # numbers
    ("5", "6"), ("5", "-5"), ("1234", "1,235"), ("1234", "12,34"), ("5", "50"), ("12", "1 2"), ("5", "5x"),
    ("0", "1"), ("1,234", "234, 1"), ("72", "7.2"), ("1500", r"1.5 \times 10^4"), ("1024", "2^{11}"),
    ("5", ""), ("5", r"\frac{5}{0}"),
    # rounded
    (r"\frac{1}{3}", "0.333333333"), (r"\frac{1}{3}", "0.33"), (r"\sqrt{2}", "1.41421356237"),
    (r"\pi", "3.14159265"), (r"\frac{2}{3}", "0.667"), (r"\frac{22}{7}", r"\pi"),
    (r"\sqrt{2}", "1.41421356237309504880"), ("e", "2.718281828"), (r"\sqrt{2}+1", "2.41421356237309504880"),
    (r"\sqrt{2}\approx 1.414", "1.414"),
    # fractions and roots
    (r"\frac{1}{2}", r"\frac{2}{1}"), (r"\frac{3}{2}", r"\frac{13}{2}"), (r"1\frac12", r"\frac{1}{2}"),
    (r"\sqrt{2}", r"\sqrt{3}"), (r"1-\sqrt{2}", r"1+\sqrt{3}"), (r"2\sqrt{3}", "2"),
    (r"\sqrt{2}", r"-\sqrt{2}"), (r"\sqrt[3]{2}", r"\sqrt{2}"),
    (r"\frac{\sqrt{3}}{2}", r"\frac{\sqrt{3}}{3}"),
    # percent, units, degrees
    ("12.5", "0.125"), (r"12.5\%", "1.25"), (r"5\text{ m}", r"5\text{ km}"), ("5 m", "5 km"), (r"\$5", "€5"),
    (r"5\text{ cm}", r"5\text{ cm}^2"), (r"5\text{ apples}", r"5\text{ oranges}"), (r"\$5", "5 cents"),
    ("9", "8 eggs"), ("30", r"31^\circ"), (r"5\text{ hours}", r"5\text{ minutes}"),
    (r"90\text{ mph}", r"90\text{ km/h}"), ("5", "5 x"), ("5m", "5km"), (r"25\%", "0.25 cm"),
    # intervals
    ("[2,5)", "[2,5]"), ("[2,5)", "(2,5)"), ("[2,5)", r"2<x<5"), ("[2,5)", r"2 \le x \le 5"),
    (r"(-\infty,3)", r"x\le 3"), (r"(3,\infty)", "x<3"), (r"(1,2)\cup(3,4)", "(1,2)"),
    (r"(1,2)\cup(3,4)", r"(1,2)\cup(3,5)"), ("[2,5)", "2,5"), (r"x > 3", "y > 3"), (r"[1,2]", r"\{1,2\}"),
    # lists that contain the gold, or lack a part
    ("5", "5, 6"), ("5", "4 or 5"), ("5", r"\{5,6\}"), ("1,2", "1,2,3"), ("1,2,3", "1,2"),
    (r"\{1,2\}", r"\{1,3\}"), (r"\pm 2", "2"), ("2", r"\pm 2"), (r"3\pm\sqrt{2}", r"3+\sqrt{2}"),
    ("5", "1,2,3,4,5"), ("C", "A, B, C"), ("C", "A or C"), ("5", "x=5, x=6"), ("1,1,2", "1,2,2"),
    ("12", r"\boxed{12}, 13"),
    # tuples and matrices
    ("(1,2)", "(2,1)"), ("(1,2)", "(1,2,3)"), ("(1,2)", r"\{1,2\}"), ("(4,10)", "10, 4"), ("(1,2)", "[1,2]"),
    ("-2,1", "(-2,1)"), ("(-2,1)", "-2, 1"),
    (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\begin{pmatrix}1&3\\2&4\end{pmatrix}"),
    (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\begin{pmatrix}1&2&3&4\end{pmatrix}"),
    (r"\begin{pmatrix}-1\\6\end{pmatrix}", "(6,-1)"),
    # expressions
    ("x+1", "x-1"), ("x+1", "y+1"), ("x^2", "x^3"), ("2x", "x^2"), ("p-q", "q-p"), (r"\sin x", r"\cos x"),
    ("xy", "x+y"), ("P", "p"), (r"e^{2x}", r"e^{x^2}"), (r"\frac{x}{y}", r"\frac{y}{x}"),
    (r"(x+1)^2", "x^2+1"), ("6-5i", "6+5i"), (r"\frac{n(n+1)}{2}", r"\frac{n(n-1)}{2}"),
    # equations
    ("x=5", "y=5"), ("5", "x=6"), ("y=2x+1", "y=2x-1"), ("x=1,y=2", "x=2,y=1"), ("1", "9=1"),
    ("x^2+y^2=1", "1"), ("x^2+y^2=1", "x^2-y^2=1"), ("5", "2+2=5"), ("x=5", "x>5"),
    # choices and words
    ("C", "D"), ("C", "(D) 42"), ("A", "a dog"), ("even", "odd"), ("even", "neve"), ("Monday", "Tuesday"),
    ("ABC", "ACB"), ("no solution", "one solution"), ("no", "on"), ("5", "5 xy"), ("5", "5xy^2"),
    ("7", "7 and nothing else"), ("5", "five hundred"), ("even", "5"),
    # bases
    ("1210_3", "1210_4"), ("2516_8", "2517"), ("12", "12_8"), ("101_2", "101_3"),
    # malformed
    ("5", "{5"), (r"\frac{1}{2}", r"\frac{1}{2"), (r"\frac{1}{2}", r"\frac{1}{}"), ("5", "$"),
    ("5", r"\text{}"), ("5", "?"), ("5", r"\boxed{}"), ("5", r"5 \frac"), ("5", "5 6"), ("5", "5^"),
    ("5", "((((5"), ("3:2", "2:3"),
]  # fmt: skip
