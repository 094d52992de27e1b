"""Public data formats: each record is read completely, or dropped with a reason."""

import json
from pathlib import Path

import making
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.core import pipeline
from data_prep.core.step import Drop
from data_prep.errors import DataError
from data_prep.sources.columns import mapped
from data_prep.sources.shapes import recognised

ASKED = {"role": "user", "content": "How many legs have three spiders?"}
ANSWERED = {"role": "assistant", "content": "A spider has 8 legs, so 3 spiders have 24."}
WRONG = {"role": "assistant", "content": "18"}
QUESTION, GOOD, BAD = (message["content"] for message in (ASKED, ANSWERED, WRONG))


def load(folder: Path, records: list[dict], **params: object) -> tuple[list[dict], dict[str, int]]:
    making.write_jsonl(folder / "in.jsonl", records)
    spec = making.spec(folder, ("load", {"path": "in.jsonl", **params}), max_drop_share=1.0)
    manifest = pipeline.run(spec)[0]
    return list(pipeline.read_rows(pipeline.find(spec))), manifest.drops


@pytest.mark.parametrize(
    "record",
    [
        {"prompt": QUESTION, "chosen": GOOD, "rejected": BAD},
        {"prompt": [ASKED], "chosen": [ANSWERED], "rejected": [WRONG]},
        {"prompt": QUESTION, "chosen": [ASKED, ANSWERED], "rejected": [ASKED, WRONG], "score_chosen": 8.0},
        {"chosen": [ASKED, ANSWERED], "rejected": [ASKED, WRONG]},
        {
            "chosen": f"\n\nHuman: {QUESTION}\n\nAssistant: {GOOD}",
            "rejected": f"\n\nHuman: {QUESTION}\n\nAssistant: {BAD}",
        },
        {
            "conversations": [{"from": "human", "value": QUESTION}],
            "chosen": {"from": "gpt", "value": GOOD},
            "rejected": {"from": "gpt", "value": BAD},
        },
        {"instruction": QUESTION, "input": "", "chosen": GOOD, "rejected": BAD},
        {"input": {"messages": [ASKED], "tools": []}, "preferred_output": [ANSWERED], "non_preferred_output": [WRONG]},
        {"instruction": QUESTION, "chosen_response": GOOD, "rejected_response": BAD},
        {"system": "", "input": QUESTION, "chosen": GOOD, "rejected": BAD, "history": None},
        {
            "conversation": [{"input": QUESTION, "output": GOOD}],
            "chosen": [ASKED, ANSWERED],
            "rejected": [ASKED, WRONG],
        },
        {"prompt": f"\n\nHuman: {QUESTION}\n\nAssistant:", "chosen": GOOD, "rejected": BAD},
        {"prompt": json.dumps([ASKED]), "chosen": json.dumps([ANSWERED]), "rejected": json.dumps([WRONG])},
        {"messages": [ASKED, ANSWERED], "rejected_response": BAD},
        {"query": QUESTION, "response": GOOD, "rejected_response": BAD},
        {"messages": [ASKED, ANSWERED], "rejected_messages": [ASKED, WRONG]},
        {"chosen_messages": [ASKED, ANSWERED], "rejected_conversations": [ASKED, WRONG]},
        {"qid": 1, "question": QUESTION, "response_j": GOOD, "response_k": BAD},
        {"prompt": QUESTION, "response_0": BAD, "response_1": GOOD, "better_response_id": 1, "safer_response_id": 1},
        {"instruction": QUESTION, "input": "", "output_1": GOOD, "output_2": BAD, "preference": 1.0},
        {"winner": "model_b", "conversation_a": [ASKED, WRONG], "conversation_b": [ASKED, ANSWERED], "model_a": "x"},
        {"prompt": QUESTION, "response_1": GOOD, "response_2": BAD, "preference_strength": -2},
        {"question": QUESTION, "answer_a": BAD, "answer_b": GOOD, "Preferred": "B"},
    ],
    ids=[
        "texts",
        "messages",
        "ultrafeedback",
        "no prompt",
        "hh",
        "llamafactory",
        "alpaca",
        "openai",
        "argilla",
        "argilla's orca pairs",
        "capybara",
        "hh with a prompt",
        "json",
        "ms-swift",
        "ms-swift's query",
        "ms-swift's messages",
        "torchtune",
        "stack-exchange-paired",
        "pku-saferlhf",
        "alpacafarm",
        "chatbot arena",
        "helpsteer2",
        "a letter",
    ],
)
def test_preferences_of_all_public_shapes(record: dict, tmp_path: Path) -> None:
    rows, drops = load(tmp_path, [record])
    assert drops == {}
    assert (rows[0]["prompt"], rows[0]["completion"], rows[0]["rejected"]) == ([ASKED], GOOD, BAD)


@pytest.mark.parametrize(
    "record",
    [
        {"prompt": [ASKED], "completion": [ANSWERED]},
        {"messages": [ASKED, ANSWERED]},
        {"messages": [{**ASKED, "content": [{"type": "text", "text": QUESTION}]}, ANSWERED]},
        {"conversations": [{"from": "human", "value": QUESTION}, {"from": "gpt", "value": GOOD}]},
        {"instruction": QUESTION, "input": "", "output": GOOD, "history": []},
        {"conversations": [{"from": "Human", "value": QUESTION}, {"from": "GPT", "value": GOOD}], "system": None},
        {"prompt": [ASKED], "completion": [ANSWERED], "label": True},
        {"messages": [ASKED, {**ANSWERED, "weight": 1, "tool_calls": None}], "tools": None, "images": None},
        {"messages": [ASKED, ANSWERED], "tests": "assert legs(3) == 24", "references": "24", "answer": {"n": 24}},
        {"messages": [ASKED, ANSWERED], "images": "[]", "image": {"bytes": None, "path": None}, "image_count": 0},
        {"messages": [ASKED, {**ANSWERED, "function_call": {"name": None, "arguments": None}}], "videos": [None]},
        {"prompt": QUESTION, "response": GOOD, "context": "three spiders", "options": "[]", "tools": "None"},
        {"input": QUESTION, "output": GOOD, "history": "[]"},
        {"messages": [ASKED, {**ANSWERED, "weight": "1", "train": True, "mask": 0, "loss": 0.41}]},
        {"instruction": "", "input": QUESTION, "output": GOOD},
        {"instruction": None, "input": QUESTION, "output": GOOD},
        {"messages": [], "prompt": QUESTION, "completion": GOOD},
        {"messages": str([ASKED, ANSWERED])},
        {"conversations": [{"from": "human ", "value": QUESTION}, {"from": "AI", "value": GOOD}]},
        {"question": QUESTION, "solution": "24", "attempt": GOOD},
        {"input": QUESTION, "output": GOOD, "solution": "print(3 * 8)"},
        {"problem": QUESTION, "generated_solution": GOOD, "expected_answer": "24"},
        {"messages": [{**ASKED, "content": [{"type": "text", "value": QUESTION}], "loss_weight": 0.0}, ANSWERED]},
        {"prompt": QUESTION, "response": GOOD, "id": {"$oid": "5f"}, "references": [{"title": "x"}], "label": 1},
        {"Question": QUESTION, " RESPONSE": GOOD},
        {"inputs": QUESTION, "targets": GOOD},
        {"conversations": [QUESTION, GOOD], "source": "stackexchange"},
        {"conversation": [{"system": "", "input": QUESTION, "output": GOOD}]},
        {"conversation": [{"human": QUESTION, "assistant": GOOD}]},
        {"question": QUESTION, "solution": [GOOD], "final_answer": ["24"]},
        {"contents": [{"role": "user", "parts": [{"text": QUESTION}]}, {"role": "model", "parts": [{"text": GOOD}]}]},
        {"messages": {"role": ["User", "Chatbot"], "content": [QUESTION, GOOD], "name": None}},
        {"messages": [json.dumps(ASKED), json.dumps(ANSWERED)]},
        {"messages": json.dumps(json.dumps([ASKED, ANSWERED], indent=1))},
        {"kind": "MRC", "input": QUESTION, "target": GOOD},
        {"instruction": QUESTION, "generation": GOOD, "distilabel_metadata": {"raw_output": GOOD}},
    ],
)
def test_conversations_of_all_public_shapes(record: dict, tmp_path: Path) -> None:
    rows, _ = load(tmp_path, [record])
    assert (rows[0]["prompt"], rows[0]["completion"]) == ([ASKED], GOOD)


@pytest.mark.parametrize("history", [[["Hi", "Hello."]], '[["Hi", "Hello."]]'])
def test_a_history_stays_in_the_prompt(history: object, tmp_path: Path) -> None:
    record = {"instruction": QUESTION, "output": GOOD, "system": "Be brief.", "history": history}
    rows, _ = load(tmp_path, [record])
    assert [message["role"] for message in rows[0]["prompt"]] == ["system", "user", "assistant", "user"]


def test_gsm8k_is_a_solution_and_its_number(tmp_path: Path) -> None:
    rows, _ = load(
        tmp_path, [{"question": "1,000 hens, 10 are sold. How many remain?", "answer": "1000-10=990\n#### 990"}]
    )
    assert (rows[0]["completion"], rows[0]["answer"]) == ("1000-10=990\n#### 990", "990")
    rows, _ = load(tmp_path, [{"question": QUESTION, "answer": "3*8=24\n#### 24", "completion": GOOD}])
    assert (rows[0]["completion"], rows[0]["answer"]) == (GOOD, "24")


@pytest.mark.parametrize("given", [["24"], '["24"]', 24.0, "24"])
def test_a_gold_inside_an_object_or_its_json_text(given: object, tmp_path: Path) -> None:
    gold = {"ground_truth": given, "style": "rule"}
    rows, _ = load(tmp_path, [{"prompt": QUESTION, "reward_model": value} for value in (gold, json.dumps(gold))])
    assert [row["answer"] for row in rows] == ["24", "24"]


def test_several_solutions_leave_the_answer(tmp_path: Path) -> None:
    rows, _ = load(tmp_path, [{"question": QUESTION, "solution": [GOOD, "3 × 8 = 24"], "final_answer": ["24"]}])
    assert (rows[0]["answer"], rows[0].get("completion")) == ("24", None)


def test_a_system_prompt_as_parts(tmp_path: Path) -> None:
    system = [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}]
    rows, _ = load(tmp_path, [{"system": system, "messages": [ASKED, ANSWERED]}])
    assert rows[0]["prompt"] == [{"role": "system", "content": "Be brief."}, ASKED]


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"messages": [ASKED, {**ANSWERED, "reasoning_content": "8 times 3"}]}, "reasoning_content"),
        ({"messages": [ASKED, ANSWERED], "images": ["a.png"]}, "images, video or audio"),
        ({"messages": [{**ASKED, "content": [{"type": "image_url"}]}, ANSWERED]}, "images, video or audio"),
        ({"messages": [ASKED, {**ANSWERED, "tool_calls": [{"id": "1"}]}]}, "tool calls"),
        ({"messages": [ASKED, ANSWERED], "tools": [{"name": "search"}]}, "tools"),
        ({"messages": [ASKED, ANSWERED, {"role": "system", "content": "x"}, ASKED]}, "system message among the turns"),
        ({"messages": [ASKED, {**ANSWERED, "weight": 0}, ASKED, ANSWERED]}, "an answer of weight 0"),
        ({"prompt": "p", "chosen": [ASKED, ANSWERED], "rejected": [WRONG]}, "the prompt is not what chosen answers"),
        ({"messages": []}, "empty prompt"),
        ({"messages": [ASKED, {**ANSWERED, "train": False}]}, "an answer of weight 0"),
        *(
            ({"messages": [ASKED, {**ANSWERED, **mark}, ASKED, ANSWERED]}, "an answer of weight 0")
            for mark in (
                {"weight": "0.0"},
                {"trainable": False},
                {"loss_mask": 0},
                {"loss_mask": [1, 1, 0]},
                {"mask": True},
                {"ignore": "true"},
                {"train": "false"},
                {"train_detail": [{"begin_offset": 0, "end_offset": 5, "train": False}]},
            )
        ),
        ({"messages": [ASKED, {**ANSWERED, "content": None}]}, "null content"),
        ({"messages": [ASKED, {**ANSWERED, "content": " \n"}]}, "empty answer"),
        ({"messages": [ASKED, {**ANSWERED, "content": ""}, ASKED, ANSWERED]}, "empty answer"),
        ({"messages": "[{'role': 'user', 'content': 'Hi'}\n {'role': 'assistant'"}, "messages that are no JSON"),
        *(
            ({"prompt": text, "completion": GOOD}, "messages that are no JSON")
            for text in (
                "[{'content': 'Hi', 'role': 'user'}\n {'content'",
                "array([{'content': 'Hi', 'role': 'user'}])",
            )
        ),
        *(
            ({"prompt": QUESTION, "reward_model": {"ground_truth": golds}}, "answer is not one text")
            for golds in (["24", "24.0"], '["24", "24.0"]', {"target": ["24"]})
        ),
        *(
            ({"prompt": QUESTION, "completion": BAD, "label": label}, "undesirable completion")
            for label in (0, "undesirable", "False")
        ),
        ({"messages": [ASKED, {**ANSWERED, "content": None, "refusal": "I cannot."}]}, "refusal"),
        ({"prompt": QUESTION, "completion": BAD, "label": False}, "undesirable completion"),
        ({"messages": [ASKED, WRONG], "kto_tag": False}, "undesirable completion"),
        (
            {"prompt": QUESTION, "chosen": [{**ANSWERED, "reasoning": "8 × 3"}], "rejected": [WRONG]},
            "reasoning_content",
        ),
        ({"instruction": "Who?", "context": {"title": "Spiders"}, "response": "x"}, "context that is no text"),
        ({"instruction": "Who?", "output": "x", "history": [["Hi", None]]}, "history is not pairs of texts"),
        ({"messages": [{**ASKED, "images": ["b64"]}, ANSWERED]}, "images, video or audio"),
        ({"prompt": QUESTION, "response": GOOD, "image_path": "a.png"}, "images, video or audio"),
        ({"messages": [ASKED, {**ANSWERED, "training": False}, ASKED, ANSWERED]}, "an answer of weight 0"),
        ({"messages": [ASKED, ANSWERED], "chat_template_kwargs": {"xml_tools": ["search"]}}, "tools"),
        *(
            ({"messages": [ASKED, ANSWERED], name: [{"text": "On spiders."}]}, "documents")
            for name in ("documents", "search_results", "Evidence", "retrieved_docs")
        ),
        ({"messages": [ASKED, ANSWERED], "sample_weight": 0.5}, "an answer of weight 0"),
        ({"prompt": QUESTION, "response": GOOD, "starter_code": "def legs():"}, "starter code"),
        ({"messages": [ASKED, ANSWERED], "system": ["Be brief."]}, "system prompt is not a text"),
        ({"messages": [ASKED, ANSWERED], "reasoning_content": "8 times 3"}, "reasoning_content"),
        ({"prompt": QUESTION, "chosen": GOOD, "rejected": BAD, "reasoning_content": "8 × 3"}, "reasoning_content"),
        *(
            ({"messages": [ASKED, ANSWERED], name: {"bytes": "iVBOR"}}, "images, video or audio")
            for name in ("image_1", "decoded_image", "Img", "image_bytes", "base64_image", "picture", "media", "frames")
        ),
        ({"messages": [{**ASKED, "experimental_attachments": [{"url": "x"}]}, ANSWERED]}, "images, video or audio"),
        (
            {"messages": [{**ASKED, "content": [{"type": "text", "text": QUESTION, "image": "a.png"}]}, ANSWERED]},
            "images, video or audio",
        ),
        *(
            ({"prompt": f"{mark}\n{QUESTION}", "response": GOOD}, "images, video or audio")
            for mark in ("<image>", "<img>https://example.org/a.png</img>")
        ),
        *(
            ({"messages": [ASKED, ANSWERED], name: '[{"name": "search"}]'}, "tools")
            for name in ("available_tools", "Tools", "tool", "tool_definitions", "function", "plugins")
        ),
        *(
            ({"question": QUESTION, name: ["18", "24"], "answer": 1}, "choices")
            for name in ("choices", "options", "answer_choices", "Options")
        ),
        ({"question": QUESTION, "A": "18", "B": 24, "answer": "B"}, "choices"),
        ({"question": "Which of 1, 2 and 3 is even?", "choices": ["1", "2", "3"], "answer": 1}, "choices"),
        ({"question": QUESTION, "passage": "A spider has 8 legs.", "answer": "24"}, "documents"),
        ({"prompt": QUESTION, "document": "A spider has 8 legs.", "completion": GOOD}, "documents"),
        ({"messages": [ASKED, ANSWERED], "history": [["Hi", "Hello."]]}, "history"),
        (
            {"messages": [ASKED, {**ANSWERED, "reasoning_details": [{"type": "reasoning.encrypted", "data": "x"}]}]},
            "reasoning_content",
        ),
        ({"messages": [ASKED], "thought": "8 times 3", "response": GOOD}, "reasoning_content"),
        ({"messages": [ASKED, {**WRONG, "channel": "analysis"}, ANSWERED]}, "reasoning_content"),
        ({"prompt": QUESTION, "scratchpad": "3 × 8", "qwq_cot": "8 × 3", "response": GOOD}, "reasoning_content"),
        ({"prompt": json.dumps([QUESTION, "And four?"]), "response": GOOD}, "prompt is a list of texts"),
        ({"messages": {"role": ["user"], "content": []}}, "prompt is neither a text nor messages"),
        ({"contents": [{"role": "user", "parts": [{"functionCall": {"name": "f"}}]}]}, "content that is no text"),
        ({"Question": QUESTION, "Correct Answer": "24", "Incorrect Answer 1": "18"}, "choices"),
        ({"prompt": QUESTION, "prefill": "8 × 3", "chosen": "= 24", "rejected": "= 18"}, "prefill"),
        ({"definition": "Count legs.", "inputs": "three spiders", "targets": "24"}, "definition"),
        *(
            ({"prompt": QUESTION, "response_0": GOOD, "response_1": BAD, **choice}, "no preference")
            for choice in (
                {"better_response_id": 1, "safer_response_id": 0},
                {"winner": "tie"},
                {"preference": 1.4},
                {"preference": 2},
                {"preference": None},
                {"overall_preference": 0},
            )
        ),
        *(
            ({"prompt": f"{mark}{QUESTION}", "response": GOOD}, "a chat template in the prompt")
            for mark in ("<|im_start|>user\n", "Hi\n<extra_id_1>Assistant\n", "[INST] Hi [/INST] Hello. ", "[|Human|] ")
        ),
        *(
            ({"prompt": QUESTION, "ground_truth": gold}, "answer is not one text")
            for gold in ('{"func_name": "validate_lowercase"}', '{ "inputs": ["1"], "outputs": ["24"]}')
        ),
        (
            {"prompt": [ASKED], "completion": [{"role": "system", "content": "x"}, ANSWERED]},
            "system message among the turns",
        ),
    ],
)
def test_unrepresentable_content_is_a_counted_drop(record: dict, reason: str, tmp_path: Path) -> None:
    rows, drops = load(tmp_path, [{"messages": [ASKED, ANSWERED]}, record])
    assert len(rows) == 1
    assert drops == {reason: 1}


def test_a_context_and_a_second_system_prompt_stay_in_the_prompt(tmp_path: Path) -> None:
    record = {"instruction": "How old?", "context": "Founded in 1855.", "response": "169 years", "system": "Be exact."}
    rows, _ = load(tmp_path, [record])
    assert [message["content"] for message in rows[0]["prompt"]] == ["Be exact.", "How old?\nFounded in 1855."]
    for name, extra in (("prompt", "query"), ("question", "input"), ("prompt", "context"), ("Question", "Body")):
        rows, _ = load(tmp_path, [{name: "Translate.", extra: "Bonjour", "response": "Hello", "history": [ASKED]}])
        assert [message["content"] for message in rows[0]["prompt"]] == [QUESTION, "Translate.\nBonjour"]
    both = {"system": "Be exact.", "messages": [{"role": "system", "content": "Be kind."}, ASKED, ANSWERED]}
    rows, _ = load(tmp_path, [both])
    assert rows[0]["prompt"][0]["content"] == "Be exact.\n\nBe kind."


@pytest.mark.parametrize(
    "record",
    [
        {"system_prompt": "Be brief.", "question": QUESTION, "response": GOOD},
        {"messages": [ASKED, ANSWERED], "System Message": "Be brief.", "system": None},
        {"input": [ASKED], "output": GOOD, "system_prompt": "Be brief.", "reasoning": "off"},
        {"messages": [ASKED, ANSWERED], "chat_template_kwargs": {"custom_instructions": "Be brief.", "xml_tools": []}},
        {"prompt": QUESTION, "chosen": [{"role": "system", "content": "Be brief."}, ASKED, ANSWERED], "rejected": BAD},
        {"messages": [ASKED, ANSWERED], "systemInstruction": {"parts": [{"text": "Be brief."}]}},
    ],
    ids=["openorca", "system_message", "nemotron", "smoltalk2", "chosen alone has it", "gemini"],
)
def test_a_system_prompt_is_kept_in_any_position(record: dict, tmp_path: Path) -> None:
    if "chosen" in record:
        record["rejected"] = [*record["chosen"][:2], WRONG]
    rows, drops = load(tmp_path, [record])
    assert (rows[0]["prompt"], rows[0]["completion"]) == ([{"role": "system", "content": "Be brief."}, ASKED], GOOD)
    assert drops == {}


@pytest.mark.parametrize("names", [("completion",), ("chosen", "rejected")])
def test_multi_turn_answers_are_kept(names: tuple[str, ...], tmp_path: Path) -> None:
    rows, _ = load(tmp_path, [{"prompt": [ASKED], **{name: [WRONG, ASKED, ANSWERED] for name in names}}])
    assert (rows[0]["prompt"], rows[0]["completion"]) == ([ASKED, WRONG, ASKED], GOOD)


def test_a_column_map_discards_nothing(tmp_path: Path) -> None:
    good = {"q": QUESTION, "a": GOOD}
    bad = [{"images": ["a.png"]}, {"tools": '[{"name": "search"}]'}, {"a": [ASKED, WRONG, ASKED, ANSWERED]}]
    kept = {"meta.passage": "passage"}
    rows, _ = load(tmp_path, [{**good, "passage": "On spiders."}], columns={"prompt": "q", "completion": "a", **kept})
    assert rows[0]["meta"] == {"passage": "On spiders."}
    records = [{**good, "system": "Be brief.", "tools": "[]"}, *({**good, **extra} for extra in bad)]
    rows, drops = load(tmp_path, records, columns={"prompt": "q", "completion": "a"})
    assert [[message["role"] for message in row["prompt"]] for row in rows] == [["system", "user"]]
    assert drops == {"images, video or audio": 1, "tools": 1, "several answers in one completion": 1}


@pytest.mark.parametrize("text", ['[{"legs": 8}]', "{[8, 3], [1, 2]}", "{8, 3}"])
def test_a_text_that_looks_like_json_or_python_is_a_text(text: str, tmp_path: Path) -> None:
    rows, _ = load(tmp_path, [{"prompt": text, "completion": text}])
    assert (rows[0]["prompt"][0]["content"], rows[0]["completion"]) == (text, text)


def test_the_format_may_be_recognised_late(tmp_path: Path) -> None:
    for other in ({"prompt": None}, {"text": "x"}):
        rows, drops = load(tmp_path, [other] * 150 + [{"prompt": QUESTION, "completion": GOOD}])
        assert (len(rows), sum(drops.values())) == (1, 150)


def test_the_prompt_of_a_pair_may_be_one_of_its_turns(tmp_path: Path) -> None:
    before = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}, ASKED]
    pair = {"chosen": [*before, ANSWERED], "rejected": [*before, WRONG]}
    rows, _ = load(tmp_path, [{"prompt": prompt, **pair} for prompt in ("Hi", QUESTION)])
    assert [(row["prompt"], row["rejected"]) for row in rows] == [(before, BAD)] * 2


def test_both_system_messages_of_a_pair_are_kept(tmp_path: Path) -> None:
    one, two = ({"role": "system", "content": text} for text in ("Be brief.", "Be kind."))
    record = {"prompt": [one, ASKED], "chosen": [two, ASKED, ANSWERED], "rejected": [two, ASKED, WRONG]}
    rows, _ = load(tmp_path, [record])
    assert rows[0]["prompt"][0]["content"] == "Be brief.\n\nBe kind."


def test_references_come_from_several_columns(tmp_path: Path) -> None:
    record = {"prompt": "Hi", "ref_output_a": "Hello.", "ref_output_b": None, "more": ["Good day.", " "]}
    rows, _ = load(tmp_path, [record], columns={"prompt": "prompt", "references": ["ref_output_*", "more"]})
    assert rows[0]["references"] == ["Hello.", "Good day."]
    with pytest.raises(DataError, match=r"no column reply_\*"):
        load(tmp_path, [record], columns={"prompt": "prompt", "references": ["reply_*"]})


def test_equal_ids_in_two_inputs_are_rejected(tmp_path: Path) -> None:
    for name in ("a", "b"):
        making.write_jsonl(tmp_path / f"{name}.jsonl", [{"id": "0", "prompt": f"question {name}"}])
    steps = [
        {
            "name": name,
            "kind": "load",
            "params": {"path": f"{name}.jsonl", **({"id_prefix": name} if name == "b" else {})},
        }
        for name in ("a", "b")
    ]
    both = {"name": "dedup", "kind": "dedup", "params": {}, "inputs": ["a", "b"]}
    spec = {"name": "x", "base": str(tmp_path), "cache": str(tmp_path / "c"), "steps": [*steps, both]}
    assert pipeline.run(pipeline.Spec.model_validate(spec))[-1].rows_out == 2
    steps[1]["params"].pop("id_prefix")
    with pytest.raises(DataError, match=r'a row with id "0".*id_prefix'):
        pipeline.run(pipeline.Spec.model_validate(spec))


def test_a_single_reference_is_a_list_of_one(tmp_path: Path) -> None:
    rows, _ = load(tmp_path, [{"prompt": "Hi", "references": "Hello."}, {"prompt": "Ho", "reference": "Hello."}])
    assert [row["references"] for row in rows] == [["Hello."], ["Hello."]]


def test_an_empty_sample_is_kept_but_an_empty_answer_is_not(tmp_path: Path) -> None:
    others = [{"prompt": QUESTION, "completion": GOOD, "meta": {"finish_reason": "stop"}}] * 3
    empty = {"prompt": QUESTION, "completion": ""}
    rows, drops = load(tmp_path, [*others, {**empty, "meta": {"finish_reason": "stop"}}, empty])
    assert [row["completion"] for row in rows] == [GOOD, GOOD, GOOD, ""]
    assert sum(drops.values()) == 1


FIELDS = ("role", "content", "from", "value", "parts", "text", "type", "input", "output", "weight", "reasoning")
COLUMNS = (
    "prompt",
    "messages",
    "completion",
    "answer",
    "chosen",
    "rejected",
    "system",
    "history",
    "cot",
    "weight",
    "tools",
)
TEXTS = st.sampled_from(("", "[]", "user", "assistant", "system", QUESTION, '[{"role": "user"}]', "{[1], 2}", "\ud800"))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(COLUMNS), VALUES), st.sampled_from((None, "think")))
def test_no_record_ends_the_load(record: dict, thinking: str | None) -> None:
    for convert in (
        recognised({"prompt": QUESTION}, "in.jsonl", thinking),
        mapped({"prompt": "prompt", "completion": "completion", "answer": "answer"}, COLUMNS, "in.jsonl", thinking),
    ):
        assert isinstance(convert(record), dict | Drop)
