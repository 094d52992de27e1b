"""Steps of the long_cot family."""

STEPS = {
    "chat_prompts": "data_prep.families.long_cot.prompts:ChatPrompts",
    "request_traces": "data_prep.families.long_cot.traces:RequestTraces",
    "traces": "data_prep.families.long_cot.traces:Traces",
}
