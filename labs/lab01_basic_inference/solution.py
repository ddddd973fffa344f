"""Lab 01: Basic Inference. The solution.

Yours is starter.py, where each TODO is a function to write. This is one right answer to each; the
tests accept many others.
"""

import sys
import time
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent))  # labkit is there, or beside this file

from labkit.backend import (
    DEFAULT_MODEL,
    LLM,
    RequestOutput,
    SamplingParams,
    ask,
    stop_at_open_todo,
)


def create_llm(model_name: str = DEFAULT_MODEL, max_model_len: int = 512) -> LLM:
    """TODO 1: load this model and return the LLM.

    LLM(...) takes the settings by name: `model`, and `max_model_len`, which is how many tokens a
    prompt and its answer may have together. The call returns when the model is loaded, after a
    few seconds. Each call loads anew.
    """
    return LLM(model=model_name, max_model_len=max_model_len)


def create_sampling_params(
    temperature: float = 0.0,
    top_p: float = 1.0,
    max_tokens: int = 64,
) -> SamplingParams:
    """TODO 2: return SamplingParams with these three values.

    They say how each next token is chosen, and when to stop. temperature: 0 always takes the most
    likely token, more makes rarer ones likelier. top_p: draw only from the most likely tokens that
    together have this probability. max_tokens: stop after so many, finished or not.
    """
    return SamplingParams(temperature=temperature, top_p=top_p, max_tokens=max_tokens)


def generate_completions(
    llm: LLM, prompts: list[str], sampling_params: SamplingParams
) -> list[RequestOutput]:
    """TODO 3: complete all prompts in one batch; return the outputs in the prompts' order.

    llm.generate takes the whole list and computes all of it together; it returns when the last
    one is done. It gives one RequestOutput for each prompt, in order: return those as they are.
    """
    return llm.generate(prompts, sampling_params)


def display_outputs(outputs: list[RequestOutput]) -> None:
    """TODO 4: print three lines for each output, in order.

        Prompt: 'What is PEP 8?'
        Generated: 'A style guide for\\nPython code'
        Tokens: 7 (stop)

    The prompt and the text are shown as Python shows a str, {text!r}: a line break becomes \\n and
    each stays on its line. The text, the ids of its tokens and the reason why it ended are in the
    output's first completion: outputs[0] has text, token_ids and finish_reason. "stop" is an answer
    that came to its end, "length" one that ran into max_tokens.
    """
    for output in outputs:
        completion = output.outputs[0]
        print(f"Prompt: {output.prompt!r}")
        print(f"Generated: {completion.text!r}")
        print(f"Tokens: {len(completion.token_ids)} ({completion.finish_reason})")


def main(questions: list[str]) -> None:
    """Load the model, answer all questions in one batch, show the answers (given)."""
    print("=== Basic Inference Lab ===\n")
    print("Loading the model...")
    llm = create_llm()
    print("Model loaded.\n")
    sampling_params = create_sampling_params()
    began = time.perf_counter()
    outputs = generate_completions(llm, [ask(question) for question in questions], sampling_params)
    elapsed = max(time.perf_counter() - began, 1e-9)
    display_outputs(outputs)
    num_tokens = sum(len(output.outputs[0].token_ids) for output in outputs)
    print(f"\n{len(outputs)} prompts completed in {elapsed:.2f} seconds")
    print(f"Throughput: {num_tokens / elapsed:.2f} tokens/second")


if __name__ == "__main__":
    with stop_at_open_todo():
        # python starter.py "What is PEP 8?" "What is a list?" asks these; without a question:
        main(sys.argv[1:] or ["What is continuous batching?", "What is a coroutine?"])
