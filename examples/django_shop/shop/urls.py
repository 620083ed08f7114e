"""The shop's addresses."""

from __future__ import annotations

from django.urls import path

from . import views

urlpatterns = [
    path("products/<str:name>", views.product),
    path("signup", views.signup),
    path("products/<str:name>/buy", views.buy),
]
