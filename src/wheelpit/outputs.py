"""Where vLLM keeps these names; a script that imports them from there finds them here."""

from wheelpit.request import CompletionOutput, RequestMetrics, RequestOutput

__all__ = ["CompletionOutput", "RequestMetrics", "RequestOutput"]
