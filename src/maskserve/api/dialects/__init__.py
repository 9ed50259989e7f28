"""Protocols of other tools, spoken on top of the same photos, models and queue.

Each dialect is one module with a blueprint: ``open_inference`` (Triton, KServe), ``label_studio``
and ``hugging_face``. Their routes are described by whoever owns the protocol, so they are not
part of our OpenAPI document.
"""

__all__: list[str] = []
