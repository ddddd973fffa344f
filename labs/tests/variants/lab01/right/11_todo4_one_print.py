"""4: one print for all"""


def display_outputs(outputs):
    lines = []
    for output in outputs:
        text, ids = output.outputs[0].text, output.outputs[0].token_ids
        reason = output.outputs[0].finish_reason
        lines += [
            f"Prompt: {output.prompt!r}",
            f"Generated: {text!r}",
            f"Tokens: {len(ids)} ({reason})",
        ]
    sys.stdout.write("\n".join(lines) + "\n")
