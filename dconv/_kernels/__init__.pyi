# What type checkers see of the compiled modules.
from typing import Any

def __getattr__(name: str) -> Any: ...
