"""Kubernetes: an agent beside a pod's main container, which keeps its credentials in files."""
