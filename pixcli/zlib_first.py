"""The system's zlib, loaded before pycolmap: `import pixcli` does this before all else.

The Linux wheel of pycolmap exports a zlib of its own, and its libgfortran depends on the system's libz. If
nothing has loaded libz before, its inner calls bind to pycolmap's functions: the code of one library then
works on the state of the other, and Python dies ("double free or corruption") when anything compresses:
numpy.savez_compressed, Pillow's PNG, h5py. A libz that was loaded earlier binds to itself.

It is the only such library. The danger needs a library of the system that a wheel depends on, and whose
functions the wheel exports too. pycolmap also exports SQLite, OpenSSL, liblzma, libpng and more, but the
modules that use the system's own load them, not pycolmap. pyceres needs libz too, but exports nothing of it.
"""

import contextlib
import sys
import warnings

_LIBZ = "libz.so.1"


def load_zlib() -> None:
    """Load the system's zlib; warn if pycolmap did so already, which nothing can mend."""
    if not sys.platform.startswith("linux"):  # elsewhere, a call names the library that it goes to
        return
    if "pycolmap" in sys.modules and _pycolmap_loaded_libz():
        warnings.warn(
            "pycolmap was imported before zlib: Python may crash when it compresses data (PNG, npz, HDF5). "
            "Put `import zlib` or `import pixcli` before `import pycolmap`",
            RuntimeWarning,
            stacklevel=3,
        )
    import zlib  # noqa: F401

    # A zlib that is part of the interpreter may be another one than Pillow and h5py load.
    if "zlib" in sys.builtin_module_names:
        import ctypes

        with contextlib.suppress(OSError):
            ctypes.CDLL(_LIBZ)


def _pycolmap_loaded_libz() -> bool:
    """Whether libz was loaded after pycolmap."""
    paths = _loaded_libraries()
    pycolmap = next((k for k, path in enumerate(paths) if "/pycolmap/_core." in path), len(paths))
    libz = next((k for k, path in enumerate(paths) if f"/{_LIBZ}" in path), -1)
    return pycolmap < libz


def _loaded_libraries() -> list[str]:
    """Paths of the shared libraries of this process, in the order in which they were loaded."""
    import ctypes

    class Library(ctypes.Structure):  # the start of dl_phdr_info: man dl_iterate_phdr
        _fields_ = (("address", ctypes.c_void_p), ("path", ctypes.c_char_p))

    paths: list[str] = []

    def note(library: "ctypes._Pointer[Library]", size: int, data: None) -> int:
        paths.append((library.contents.path or b"").decode(errors="replace"))
        return 0

    kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(Library), ctypes.c_size_t, ctypes.c_void_p)
    ctypes.CDLL(None).dl_iterate_phdr(kind(note), None)
    return paths
