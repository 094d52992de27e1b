"""RLMT (arXiv 2509.20357): traces for SFT, prompts for online RL, and base models that are prompted into a format."""

STEPS = {
    "chat_prompts": "data_prep.families.long_cot.prompts:ChatPrompts",
    "request_traces": "data_prep.families.long_cot.traces:RequestTraces",
    "traces": "data_prep.families.long_cot.traces:Traces",
}
