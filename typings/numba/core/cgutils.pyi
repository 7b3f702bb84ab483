from typing import Any

ir: Any

def get_or_insert_function(module: Any, kind: Any, name: str) -> Any: ...
