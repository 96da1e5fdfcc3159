"""The certificate that the sink presents to the server (mutual TLS)."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from typing import TYPE_CHECKING, Self

from pydantic import Field, field_validator, model_validator

from router.api import Secret, SinkOptions

if TYPE_CHECKING:
    import ssl


class ClientCertificate(SinkOptions, defer_build=True):
    """A certificate with its chain and its private key, as PEM texts."""

    certificate: Secret = Field(
        description="The certificate as PEM, such as `${file:client.pem}`; may contain the key too."
    )
    key: Secret | None = Field(default=None, description="The private key as PEM, such as `${cred:client-key}`.")
    password: Secret | None = Field(default=None, description="The password of an encrypted key.")

    @field_validator("certificate", "key")
    @classmethod
    def _is_pem(cls, secret: Secret | None) -> Secret | None:
        """Refuse a value that is the path of a file instead of PEM text: OpenSSL would only report `pem lib`."""
        if secret is not None and not secret.is_placeholder and "-----BEGIN " not in secret.get_secret_value():
            raise ValueError("is not a PEM text (`-----BEGIN …`): write `${file:PATH}` or `${cred:NAME}`")
        return secret

    @model_validator(mode="after")
    def _loads(self) -> Self:
        secrets = (self.certificate, self.key, self.password)
        if not any(secret is not None and secret.is_placeholder for secret in secrets):
            tls_context(self)
        return self


def tls_context(options: ClientCertificate) -> ssl.SSLContext:
    """Return a TLS context that trusts the system's authorities and presents the certificate.

    Raises `ValueError` if certificate and key can't be used.
    """
    import ssl  # noqa: PLC0415  # few sinks need it, and it slows down every start

    context = ssl.create_default_context()
    password = "" if options.password is None else options.password.get_secret_value()
    key = options.key or options.certificate
    try:
        with _file(options.certificate) as certificate, _file(key) as private:
            # The password is passed as a function. If it were passed as an empty text, OpenSSL would ask for a password
            # on the terminal.
            context.load_cert_chain(certificate, private, password=lambda: password)
    except (ssl.SSLError, ValueError, OSError) as error:
        reason = getattr(error, "reason", None) or str(error)
        known = str(reason).lower().replace("_", " ")
        raise ValueError(f"certificate and key can't be used: {known or 'they are not PEM'}") from None
    return context


@contextlib.contextmanager
def _file(secret: Secret) -> Iterator[str]:
    """Store a secret in a file while OpenSSL reads it.

    The file is in memory if the system supports that. Otherwise it is on disk, and only this user can read it.
    """
    text = secret.get_secret_value().encode()
    if hasattr(os, "memfd_create"):
        number = os.memfd_create("certificate")
        try:
            os.write(number, text)
            yield f"/proc/self/fd/{number}"
        finally:
            os.close(number)
        return
    with tempfile.NamedTemporaryFile() as file:  # mode 0600
        file.write(text)
        file.flush()
        yield file.name
