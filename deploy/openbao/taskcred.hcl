# What taskcred may do in OpenBao or HashiCorp Vault, and no more. The mount is called "taskcred" here;
# where yours has another name (`vault.openbao.mount`), put it in at each of the first three paths.
#
#     bao policy write taskcred taskcred.hcl

# Key material: write it, replace it, read it. Nothing else reads or writes here, no person either.
path "taskcred/data/*" {
  capabilities = ["create", "update", "read"]
}

# Find records, and destroy them with all their versions. Not "read" or "update": nothing is kept in metadata.
path "taskcred/metadata/*" {
  capabilities = ["list", "delete"]
}

# See that the mount is of KV version 2, keeps one version, and deletes nothing by itself. Not "update".
path "taskcred/config" {
  capabilities = ["read"]
}

# Look after our own token.
path "auth/token/lookup-self" {
  capabilities = ["read"]
}
path "auth/token/renew-self" {
  capabilities = ["update"]
}
