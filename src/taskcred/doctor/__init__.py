"""What `taskcred doctor` and `taskcred config check` look at. Nothing here changes anything."""

from taskcred.doctor.check import Check
from taskcred.doctor.installation import examine
from taskcred.doctor.settings import configuration

__all__ = ["Check", "configuration", "examine"]
