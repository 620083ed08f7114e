"""Says once per request who it is from, so that every event in it knows."""

from __future__ import annotations

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse
from structlog.contextvars import bound_contextvars

View = Callable[[HttpRequest], HttpResponse]


def bind_user(get_response: View) -> View:
    """Bind the user and the path while a request is served."""

    def middleware(request: HttpRequest) -> HttpResponse:
        # Asking who the user is costs the query that `login_required` would make anyway; Django remembers the answer
        # for the request.
        user_id = request.user.pk if request.user.is_authenticated else None
        with bound_contextvars(user_id=user_id, path=request.path):
            return get_response(request)

    return middleware
