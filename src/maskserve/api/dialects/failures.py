"""Failures for clients that look for ``{"error": "…"}`` instead of a problem."""

from __future__ import annotations

from flask import Blueprint, Response, jsonify
from werkzeug.exceptions import HTTPException

from maskserve.api.problems import problem_of

__all__ = ["answer_with_error"]


def answer_with_error(blueprint: Blueprint) -> None:
    """Answer every failure in the routes of ``blueprint`` with its status and ``{"error": …}``."""
    blueprint.register_error_handler(Exception, _to_error)


def _to_error(error: Exception) -> Response | HTTPException:
    problem = problem_of(error)
    if isinstance(problem, HTTPException):
        return problem
    response = jsonify(error=problem.get_json(force=True)["detail"])
    response.status_code = problem.status_code
    for name, value in problem.headers:
        if name not in ("Content-Type", "Content-Length"):
            response.headers[name] = value
    return response
