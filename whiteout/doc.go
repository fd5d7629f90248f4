// Package whiteout holds the codecs of everything that a layer of a union
// writes down about other layers: which names it deletes, which directories
// hide what lies below, where a renamed directory came from, which file a
// copy was made of.
//
// A layer is an ordinary directory tree or tar archive. What cannot be said
// by ordinary files is said by marks, and several ways to write them are in
// use:
//
//	                deleted name "f"          directory hides all below
//	Overlay         f: char device 0:0        trusted.overlay.opaque = y
//	OverlayUser     f: char device 0:0        user.overlay.opaque = y
//	OverlayXattr    f: empty file with        trusted.overlay.opaque = y
//	                trusted.overlay.whiteout
//	OverlayUserXattr  the same two as user.overlay.*
//	Aufs, OCI       .wh.f: empty file         .wh..wh..opq: empty file in it
//	FuseOverlayfs   any of these, read only
//
// The overlay formats can also say what aufs cannot: where the lower part of
// a renamed directory lies ([Redirect]), that a file's data are still below
// ([Metacopy]), which inode a copy came from ([FileHandle]), how the link
// count of an indexed file is told ([Nlink]).
//
// The package is pure: bytes and names in, values out. It does no I/O, and
// imports nothing but the standard library. [ConvertDir] translates the marks
// of one directory into another format, or says what the other format has no
// words for.
//
// # Rules that all parsers follow
//
//   - What kernel overlayfs accepts, in the versions up to 6.18, is accepted
//     with the same meaning; the functions of fs/overlayfs are named where
//     they decide. Where a parser is stricter, its comment says so.
//   - What is malformed gives an error that is [ErrMalformed], never a guess and
//     never a panic: the bytes come from layers that strangers made.
//   - What is well formed and not usable here (a file handle of a machine with
//     the other byte order) gives an error of its own.
//   - Encode of what Parse returned gives bytes that parse to the same value.
package whiteout
