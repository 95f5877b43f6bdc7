"""OpenBao or HashiCorp Vault as the settings describe it. Needs the extra `openbao`."""

from __future__ import annotations

from taskcred.clock import SystemClock
from taskcred.config import OpenBaoSettings
from taskcred.errors import ConfigurationError

try:
    from taskcred.vaults.openbao import OpenBaoVault
    from taskcred.vaults.openbao_http import Place
    from taskcred.vaults.openbao_login import AppRoleLogin, KubernetesLogin, Login, TokenFileLogin
except ModuleNotFoundError as error:
    if error.name not in {"hvac", "requests"}:
        raise
    raise ConfigurationError(
        'vault.kind is "openbao", and the library for it is not installed.',
        hint="pip install 'taskcred[openbao,server]'",
    ) from None


def open_openbao(settings: OpenBaoSettings) -> OpenBaoVault:
    """The vault, found to work."""
    place = Place(settings.address, settings.namespace, settings.ca_file, settings.timeout)
    vault = OpenBaoVault(
        place, _login(settings), mount=settings.mount, permits=settings.bulkhead, clock=SystemClock()
    )
    try:
        vault.check()
    except BaseException:
        vault.close()
        raise
    return vault


def _login(settings: OpenBaoSettings) -> Login:
    # The settings were found to be complete (`OpenBaoSettings.missing`); types cannot say so.
    if settings.login == "approle" and settings.secret_id_file:
        return AppRoleLogin(settings.role_id, settings.secret_id_file, settings.login_mount or "approle")
    if settings.login == "token" and settings.token_file:
        return TokenFileLogin(settings.token_file)
    return KubernetesLogin(settings.role, settings.jwt_file, settings.login_mount or "kubernetes")
