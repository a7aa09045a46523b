#!/bin/sh
# Makes the certificates of the TLS tests anew: an authority, a server on loopback, a client, and a key of nobody.
# They are valid for 100 years (but `expired`) and protect nothing. Needs OpenSSL 3.4.
set -eu
cd "$(dirname "$0")"
key() { openssl genpkey -quiet -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1.key"; }
signed() {
    key "$1"
    openssl req -new -key "$1.key" -subj "/CN=unroot test $1" |
        openssl x509 -req -days 36500 -CA ca.crt -CAkey ca.key -set_serial "$2" -extfile extensions -extensions "$1" -out "$1.cert"
}
cat > extensions <<END
[server]
subjectAltName = DNS:localhost, IP:127.0.0.1
extendedKeyUsage = serverAuth
[client]
extendedKeyUsage = clientAuth
END
key ca
openssl req -x509 -new -key ca.key -days 36500 -subj "/CN=unroot test authority" -out ca.crt
signed server 1
signed client 2
key nobody
# servers whose own certificate is an authority's, as `openssl req -x509` makes them
own() {
    key "$1"
    openssl req -x509 -new -key "$1.key" -subj "/CN=unroot test $1" -addext "subjectAltName=IP:127.0.0.1" \
        -not_before 20200101000000Z -not_after "$2" -out "$1.cert"
}
own self-signed 21200101000000Z
own expired 20200102000000Z
rm ca.key extensions
