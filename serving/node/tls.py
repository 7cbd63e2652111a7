"""TLS with certificates of both sides, signed by one authority."""

import ssl

from segthor.errors import InputError
from serving.node.settings import Settings


def server_context(settings: Settings) -> ssl.SSLContext | None:
    """For associations that peers open; None without TLS. Raises InputError as `_load` does."""
    return _load(settings, ssl.PROTOCOL_TLS_SERVER)


def client_context(settings: Settings) -> ssl.SSLContext | None:
    """For associations that the node opens; None without TLS. Raises InputError as `_load` does."""
    return _load(settings, ssl.PROTOCOL_TLS_CLIENT)


def _load(settings: Settings, protocol: int) -> ssl.SSLContext | None:
    if not settings.has_tls:
        return None
    context = ssl.SSLContext(protocol)
    # Peers are configured by address; their certificate must be signed by the authority.
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(settings.tls_certificate, settings.tls_key)
        context.load_verify_locations(settings.tls_authority)
    except (OSError, ssl.SSLError) as error:
        raise InputError(
            f"--tls_certificate={settings.tls_certificate}, --tls_key, --tls_authority: expected "
            f"readable PEM files that fit each other ({error})"
        ) from error
    return context
