"""Mail by SMTP (RFC 5321), with STARTTLS (RFC 3207) and a password where configured."""

from __future__ import annotations

import smtplib
import ssl
from email.message import EmailMessage
from email.utils import format_datetime
from pathlib import Path
from typing import Final

from taskcred.errors import ConfigurationError
from taskcred.notify.files import read_lines
from taskcred.services.notices import Message, NotDelivered

_TIMEOUT: Final = 20.0  # seconds for each answer of the server
_SETTING: Final = "notices.smtp_password_file"


class SmtpSender:
    """Sends each message in a connection of its own: notices are few."""

    def __init__(
        self,
        host: str,
        port: int,
        *,
        mail_from: str,
        starttls: bool = False,
        user: str = "",
        password_file: Path | None = None,
    ) -> None:
        """Raises ConfigurationError where the password is missing or unreadable."""
        if user and password_file is None:
            raise ConfigurationError(
                "notices.smtp_user is set and notices.smtp_password_file is not.",
                hint="Name a file with the SMTP password, or leave out the user.",
            )
        if password_file is not None:
            read_lines(password_file, _SETTING)
        self._address: Final = (host, port)
        self._mail_from: Final = mail_from
        self._starttls: Final = starttls
        self._user: Final = user
        self._password_file: Final = password_file

    def send(self, message: Message) -> NotDelivered | None:
        """Hand the mail to the server. A refusal with a 5xx code (RFC 5321, 4.2.1) is for good."""
        if not message.to:
            return NotDelivered("No mail address of the owner is known.", for_good=True)
        try:
            mail = self._compose(message)
        except ValueError:
            return NotDelivered("The owner's mail address is not valid.", for_good=True)
        try:
            with smtplib.SMTP(*self._address, timeout=_TIMEOUT) as server:
                if self._starttls:
                    server.starttls(context=ssl.create_default_context())
                if self._user and self._password_file is not None:
                    # The server is the one who needs the password's text.
                    server.login(self._user, read_lines(self._password_file, _SETTING)[0].reveal())
                server.send_message(mail)
        except smtplib.SMTPRecipientsRefused as error:
            codes = [code for code, _ in error.recipients.values()]
            return NotDelivered(
                f"The mail server refused the address (code {max(codes)}).", for_good=min(codes) >= 500
            )
        except smtplib.SMTPResponseException as error:
            # Its text may repeat what we said to it; the code says enough.
            for_good = error.smtp_code >= 500 and not isinstance(error, smtplib.SMTPAuthenticationError)
            return NotDelivered(f"The mail server answered with code {error.smtp_code}.", for_good=for_good)
        except (OSError, smtplib.SMTPException, ConfigurationError) as error:
            return NotDelivered(f"The mail server could not be used ({type(error).__name__}).")
        return None

    def _compose(self, message: Message) -> EmailMessage:
        """Raises ValueError where the address cannot be a header: no line breaks get in."""
        mail = EmailMessage()
        mail["From"] = self._mail_from
        mail["To"] = message.to
        mail["Subject"] = f"taskcred: {message.title}"
        mail["Date"] = format_datetime(message.at)
        mail["Message-ID"] = f"<{message.id}@{self._mail_from.rpartition('@')[2]}>"
        mail["Auto-Submitted"] = "auto-generated"  # RFC 3834: no out-of-office answers, please
        where = f"\n\n{message.action_url}\n\nThe link works for you only, after signing in."
        mail.set_content(f"{message.text}{where if message.action_url else ''}\n")
        return mail
