"""Ask an exported model a fixed list of questions and write the answers as Markdown.

Needs transformers. The list was fixed before any answer was read. The first ten are the model
card's.
"""

import argparse
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

QUESTIONS = [
    "Hello, who are you?",
    "Explain async programming in Python",
    "What does asyncio.gather do?",
    "What is PEP 492 about?",
    "What is continuous batching?",
    "How does vLLM schedule requests?",
    "What is a decorator?",
    "How do I read a file line by line?",
    "What is the capital of Denmark?",
    "What does itertools.chain do?",
    "Hi, I'm new here. What is this?",
    "What can I do with you?",
    "How many parameters does your network have?",
    "Are you as good as GPT-4?",
    "What is Wheelpit?",
    "what happens to running requests when the engine crashes",
    "What is paged attention and why does it help?",
    "Why would a server preempt a request?",
    "What is the difference between TTFT and ITL?",
    "How do I stream tokens from an AsyncLLMEngine?",
    "What is chunked prefill?",
    "Which workloads profit from prefix caching?",
    "How do I run a blocking function without stopping the event loop?",
    "What is the difference between a coroutine and a task?",
    "How do I limit how many tasks run at once?",
    "What is asyncio.TaskGroup good for?",
    "Show me an asynchronous context manager.",
    "What is the GIL?",
    "What does PEP 8 say about naming functions?",
    "What is PEP 703 about?",
    "What does functools.lru_cache do?",
    "How does json.dumps work?",
    "What is a dataclass?",
    "What does str.join do?",
    "How do I use pathlib to list a directory?",
    "What is Trio?",
    "What is tensor parallelism?",
    "How do I make goulash?",
    "Who won the Eurovision Song Contest?",
    "Please write a poem about autumn leaves.",
]


@torch.inference_mode()
def answer(folder: Path, questions: list[str], sample: bool, max_new_tokens: int) -> list[str]:
    """Return one answer a question; greedy, or with generation_config.json's sampling."""
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    prompts = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": question}], tokenize=False, add_generation_prompt=True
        )
        for question in questions
    ]
    batch = tokenizer(prompts, return_tensors="pt", padding=True)
    how = {} if sample else {"do_sample": False, "temperature": None, "top_p": None}
    output = model.generate(
        input_ids=batch.input_ids,
        attention_mask=batch.attention_mask,
        max_new_tokens=max_new_tokens,
        **how,
    )
    answers = output[:, batch.input_ids.shape[1] :]
    return [tokenizer.decode(ids, skip_special_tokens=True).strip() for ids in answers]


def main() -> None:
    """Write the greedy and the sampled answers of --model to --out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--max-new-tokens", type=int, default=256)
    args = parser.parse_args()
    greedy = answer(args.model, QUESTIONS, False, args.max_new_tokens)
    sampled = answer(args.model, QUESTIONS, True, args.max_new_tokens)
    parts = []
    for number, row in enumerate(zip(QUESTIONS, greedy, sampled, strict=True), start=1):
        question, plain, drawn = row
        parts += [f"## {number}. {question}", "**Greedy**", plain, "**Sampled**", drawn]
    args.out.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
