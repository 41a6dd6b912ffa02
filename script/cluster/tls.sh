# Keys by which Dask's scheduler, workers and clients know one another: source script/cluster/tls.sh FOLDER
# Made once; whoever can read FOLDER can run code as you on every worker. It must lie where all nodes see it.
tls=$(mkdir -p "$1" && chmod 700 "$1" && cd "$1" && pwd)
if [ ! -e "$tls/cert.pem" ]; then
  (
    umask 077 && cd "$tls"
    openssl req -x509 -newkey rsa:3072 -nodes -days 365 -subj "/CN=cohort CA" -keyout ca.key -out ca.pem
    openssl req -newkey rsa:3072 -nodes -subj "/CN=cohort" -keyout key.pem -out cohort.csr
    openssl x509 -req -in cohort.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 365 -out new.pem
    mv new.pem cert.pem
  ) 2> "$tls/openssl.log"
fi
export DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION=true DASK_DISTRIBUTED__COMM__TLS__CA_FILE="$tls/ca.pem"
for role in SCHEDULER WORKER CLIENT; do
  export "DASK_DISTRIBUTED__COMM__TLS__${role}__CERT=$tls/cert.pem" "DASK_DISTRIBUTED__COMM__TLS__${role}__KEY=$tls/key.pem"
done
