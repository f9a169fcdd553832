#!/bin/sh
# make_request.sh FILE NAME: makes FILE.key, and prints a signing request for it. The key stays here.
set -eu
umask 077
openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1.key"
openssl req -new -key "$1.key" -subj "/CN=$2"
