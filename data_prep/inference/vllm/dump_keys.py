"""Dumps the names of vLLM's engine arguments and request fields, against which `engine:` and `sampling:` are checked.

<vllm python> -m data_prep.inference.vllm.dump_keys > configs/native/vllm.json
"""

import dataclasses
import json


def names() -> dict[str, list[str]]:
    """Allowed names by step parameter."""
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest

    arguments = [field.name for field in dataclasses.fields(AsyncEngineArgs)]
    return {
        "engine": sorted(name for name in arguments if not name.startswith("_")),
        "sampling": sorted(ChatCompletionRequest.model_fields),
    }


if __name__ == "__main__":
    print(json.dumps(names(), indent=1))
