#!/bin/sh
# install_identity.sh FILE CERTIFICATE: puts the new key and its certificate at FILE in one step. A
# power cut leaves the old pair or the new one, never half of each.
set -eu
umask 077
trap 'rm -f "$1.new" "$2"' EXIT
[ "$(openssl pkey -in "$1.key" -pubout)" = "$(openssl x509 -in "$2" -noout -pubkey)" ] ||
  { echo "the certificate is not for the key that was made here" >&2; exit 1; }
cat "$1.key" "$2" >"$1.new"
sync "$1.new"
mv "$1.new" "$1"
rm -f "$1.key"
sync "$(dirname "$1")"
