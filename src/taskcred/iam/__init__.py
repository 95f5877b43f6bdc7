"""The local IAM: an IBM-Cloud-compatible identity provider in a room of its own."""

from taskcred.iam.app import create_app
from taskcred.iam.operator import Operator
from taskcred.iam.service import IamConfig, LocalIam

__all__ = ["IamConfig", "LocalIam", "Operator", "create_app"]
