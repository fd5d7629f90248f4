// Package oci brings images into a layer store and out again: docker-archive,
// oci-archive, OCI layout directories, and plain tars of a root filesystem, from
// files or streams, as they are or compressed by gzip, zstd or bzip2.
//
//	archive ─> source ─> manifest ─> for each layer that the store lacks:
//	  blob ─> digest ─> decompress ─> diff id ─> tar-split ─> Driver.Apply ─> Commit
//
// Each byte of a layer is read once, on its way through that line. A layer is
// committed under its chain id when all digests are what the manifest says; until
// then it has a name of its own, and any error removes it, so that a bad archive leaves
// the store as it was.
//
// What an archive consists of beside its files (the order, padding, how the headers
// were written) is kept beside the layer (vbatts/tar-split), so that saving gives the
// same bytes, and the diff ids and the image id stay. Layers are saved uncompressed unless asked
// for otherwise: which bytes a compressor writes is its own secret.
package oci
