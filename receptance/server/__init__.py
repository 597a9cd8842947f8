"""The OpenAI-compatible face of a model.

    service = Service(receptance.load("rwkv7-g1-0.4b"), "rwkv7-g1-0.4b")
    app = create_app(service, Settings())             # for uvicorn, or any other ASGI server

What comes in is checked (`guard`, `access`, `schemas`, `parts`), made a prompt with its places (`rendering`, `marks`)
and, where an answer must have a form, a grammar (`grammars`, `constraints`).  What the engine tells becomes text
(`answers`, `calls`) and a response or the chunks of a stream (`responses`, `bodies`, `telling`).
"""

from .access import Access, read_keys
from .app import create_app
from .face import Settings
from .recipe import Recipe
from .service import Options, Service

__all__ = ["Access", "Options", "Recipe", "Service", "Settings", "create_app", "read_keys"]
