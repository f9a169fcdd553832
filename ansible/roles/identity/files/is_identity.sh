#!/bin/sh
# is_identity.sh FILE CA NAME DAYS [HOST...]: is FILE a key with a certificate of CA for NAME and the
# hosts, good for DAYS more? The first answer of "no" is printed, and ends with status 1.
set -u
file=$1 ca=$2 name=$3 days=$4
shift 4
no() { echo "$*"; exit 1; }

[ -s "$file" ] || no "$file is missing or empty"
openssl verify -CAfile "$ca" "$file" >/dev/null 2>&1 || no "$file is not signed by $ca, or has ended"
openssl x509 -in "$file" -noout -checkend $((days * 86400)) >/dev/null || no "ends within $days days"
subject=$(openssl x509 -in "$file" -noout -subject -nameopt multiline | sed -n 's/^ *commonName *= //p')
[ "$subject" = "$name" ] || no "is for $subject, not for $name"
key=$(openssl pkey -in "$file" -pubout 2>/dev/null) || no "there is no key in $file"
[ "$key" = "$(openssl x509 -in "$file" -noout -pubkey)" ] || no "key and certificate do not belong together"
for host; do
  if openssl x509 -in "$file" -noout -checkip "$host" 2>/dev/null | grep -q 'does match'; then continue; fi
  openssl x509 -in "$file" -noout -checkhost "$host" | grep -q 'does match' || no "is not for $host"
done
