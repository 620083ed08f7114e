"""The shop's three pages; a line that they log with an `event` is an event."""

from __future__ import annotations

import logging

from django.contrib.auth import get_user_model, login
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.views.decorators.http import require_POST

logger = logging.getLogger(__name__)


def product(request: HttpRequest, name: str) -> HttpResponse:  # noqa: ARG001 - Django passes it
    """Show a product, to anybody."""
    logger.info("%s viewed", name, extra={"event": "product_viewed", "product": name})
    return HttpResponse(f"{name}\n")


@require_POST
def signup(request: HttpRequest) -> HttpResponse:
    """Create a user, and log them in."""
    user, _ = get_user_model().objects.get_or_create(username=request.POST["name"])
    login(request, user)
    # This request began without a user, so its event names them itself.
    logger.info("new user", extra={"event": "signup", "user_id": user.pk, "plan": request.POST.get("plan", "free")})
    return HttpResponse(f"welcome, {user.get_username()}\n")


@require_POST
@login_required
def buy(request: HttpRequest, name: str) -> HttpResponse:
    """Sell a product to the user who is logged in."""
    logger.info(
        "sold", extra={"event": "purchase", "product": name, "quantity": int(request.POST.get("quantity", "1"))}
    )
    return HttpResponse(f"{name} is yours\n")
