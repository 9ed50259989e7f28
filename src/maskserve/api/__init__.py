"""The REST API and its page: ``create_app`` makes the Flask app, ``server.serve`` runs it."""

from maskserve.api.app import create_app
from maskserve.api.settings import ServerSettings, read_environment, resolve_settings

__all__ = ["ServerSettings", "create_app", "read_environment", "resolve_settings"]
