"""4 L1-4-NOTHING: returns the lines"""


def display_outputs(outputs):
    lines = []
    for output in outputs:
        lines.append(f"Prompt: {output.prompt!r}")
    return "\n".join(lines)
