# oci.sh: writes OCI images (sourced): an image layout directory and the same as one tar, by tar, gzip and sha256sum alone.
# The same trees give the same digests. Formats: OCI image specification 1.1, image-layout.md, manifest.md, config.md.

digest_of() { sha256sum "$1" | cut -d' ' -f1; }

# oci_begin LAYOUT — starts an image without layers.
oci_begin() {
  LAYOUT=$1 DIFF_IDS= LAYERS=
  mkdir -p "$LAYOUT/blobs/sha256"
  printf '{"imageLayoutVersion": "1.0.0"}' >"$LAYOUT/oci-layout"
}

# oci_layer TREE [TAR-OPTION…] — adds a layer holding the tree, with sorted names and one time; owners as they are, or
# as the options say.
oci_layer() {
  local tree=$1 tar=$LAYOUT/layer.tar digest
  shift
  tar --create --file "$tar" --directory "$tree" --format=gnu --sort=name --mtime=@0 --numeric-owner --exclude='./dev/*' "$@" .
  DIFF_IDS+=${DIFF_IDS:+, }"\"sha256:$(digest_of "$tar")\""
  gzip -9n "$tar"
  digest=$(digest_of "$tar.gz")
  LAYERS+=${LAYERS:+, }"{\"mediaType\": \"application/vnd.oci.image.layer.v1.tar+gzip\", \"digest\": \"sha256:$digest\", \"size\": $(stat -c %s "$tar.gz")}"
  mv "$tar.gz" "$LAYOUT/blobs/sha256/$digest"
}

# oci_blob TEXT — stores it and sets DIGEST and SIZE.
oci_blob() {
  printf '%s' "$1" >"$LAYOUT/blob"
  DIGEST=$(digest_of "$LAYOUT/blob") SIZE=$(stat -c %s "$LAYOUT/blob")
  mv "$LAYOUT/blob" "$LAYOUT/blobs/sha256/$DIGEST"
}

# oci_finish NAME CONFIG TAR — writes config (CONFIG is the JSON of its "config" member), manifest, index and the tar.
oci_finish() {
  local name=$1 config=$2 tar=$3
  oci_blob "{\"created\": \"1970-01-01T00:00:00Z\", \"architecture\": \"amd64\", \"os\": \"linux\", \"config\": $config, \"rootfs\": {\"type\": \"layers\", \"diff_ids\": [$DIFF_IDS]}}"
  oci_blob "{\"schemaVersion\": 2, \"mediaType\": \"application/vnd.oci.image.manifest.v1+json\", \"config\": {\"mediaType\": \"application/vnd.oci.image.config.v1+json\", \"digest\": \"sha256:$DIGEST\", \"size\": $SIZE}, \"layers\": [$LAYERS]}"
  printf '{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [{"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": "sha256:%s", "size": %s, "platform": {"architecture": "amd64", "os": "linux"}, "annotations": {"org.opencontainers.image.ref.name": "%s"}}]}' \
    "$DIGEST" "$SIZE" "$name" >"$LAYOUT/index.json"
  tar --create --file "$tar" --directory "$LAYOUT" --format=gnu --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner .
}
