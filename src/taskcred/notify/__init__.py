"""Reaching owners outside the pages: mail and a signed webhook; and the webhooks of services. Secrets are read from files, when needed."""

from __future__ import annotations

from taskcred.config import NoticeSettings
from taskcred.notify.service_webhook import ServiceWebhook
from taskcred.notify.smtp import SmtpSender
from taskcred.notify.webhook import WebhookSender
from taskcred.services.notices import Sender

__all__ = ["ServiceWebhook", "SmtpSender", "WebhookSender", "build_senders"]


def build_senders(settings: NoticeSettings) -> dict[str, Sender]:
    """The senders that are configured, by channel. Raises ConfigurationError where a secret is unreadable."""
    senders: dict[str, Sender] = {}
    if settings.smtp_host:
        senders["mail"] = SmtpSender(
            settings.smtp_host,
            settings.smtp_port,
            mail_from=settings.mail_from,
            starttls=settings.smtp_starttls,
            user=settings.smtp_user,
            password_file=settings.smtp_password_file,
        )
    if settings.webhook_url:
        senders["webhook"] = WebhookSender(settings.webhook_url, settings.webhook_secret_file)
    return senders
