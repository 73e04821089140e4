"""How `licet health` calls the server whose settings it has, as in its container, by TLS.

Its own certificate is trusted: whoever has the key of that is the server. Where it asks clients for
a certificate, it is shown its own, because a host's often serves both purposes; another one is
named with LICET_CALL_CERT_FILE and LICET_CALL_KEY_FILE.
"""

from __future__ import annotations

from pathlib import Path

from cryptography import x509

from licet.cli.errors import CommandError
from licet.cli.invocation import TlsOptions
from licet.config import ConfigurationError, load


def tls_of_settings() -> TlsOptions:
    """Return what the settings of this process say; nothing: the server speaks plain text.

    Raises:
        CommandError: they are not valid, or the certificate cannot be read.
    """
    try:
        settings = load()
    except ConfigurationError as exc:
        raise CommandError(str(exc)) from exc
    if settings.tls_cert_file is None:
        return TlsOptions()
    certificate = str(settings.tls_cert_file)
    name = _name_in(settings.tls_cert_file)
    if settings.tls_client_ca_file is None:
        return TlsOptions(certificate, server_name=name)
    return TlsOptions(certificate, certificate, str(settings.tls_key_file), name)


def _name_in(path: Path) -> str | None:
    """Return a name for which a certificate is valid; None: that of the address has to be."""
    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return None
    except (OSError, ValueError) as exc:
        raise CommandError(f"LICET_TLS_CERT_FILE: cannot read a certificate in {path}") from exc
    dns = found.get_values_for_type(x509.DNSName)
    addresses = found.get_values_for_type(x509.IPAddress)
    # Any label stands for the star.
    return next((name.replace("*", "health") for name in [*dns, *map(str, addresses)]), None)
