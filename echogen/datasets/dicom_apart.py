"""Decodes the pictures of a DICOM file by GDCM, in a process of its own; run as a script.

GDCM ends its whole process at some kinds of damage, and C libraries below it complain on standard
error. So it never runs in ours. This file imports nothing of the package, so that it starts fast.

Standard input is the file's path, the argument how many bytes of values may be written. For each
picture standard output has a line of JSON, {shape, dtype, kind} followed by the values' bytes, or
null where it cannot be decoded, or is too many.
"""

import json
import os
import resource
import sys
from contextlib import suppress

MEMORY = 3 * 2**29
"""Bytes beside those of the libraries."""
OWN_SIZE = "/proc/self/statm"


def bound_memory() -> None:
    """Take no more than `MEMORY`, where the system tells and allows it; macOS does not."""
    with suppress(OSError, ValueError):
        with open(OWN_SIZE) as file:  # noqa: PTH123
            most = int(file.read().split()[0]) * resource.getpagesize() + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


def main() -> None:
    """Write every picture of the file that standard input names."""
    import logging
    import warnings

    import gdcm
    from pydicom import config, dcmread
    from pydicom.pixels import get_decoder

    warnings.simplefilter("ignore")
    logging.disable()
    config.settings.reading_validation_mode = config.IGNORE
    gdcm.Trace.WarningOff()
    gdcm.Trace.ErrorOff()
    left = int(sys.argv[1])
    bound_memory()
    found = dcmread(os.fsdecode(sys.stdin.buffer.read()), force=True)
    decoder, output = get_decoder(found.file_meta.TransferSyntaxUID), sys.stdout.buffer
    for index in range(int(found.get("NumberOfFrames") or 1)):
        try:
            values, told = decoder.as_array(found, index=index, raw=True, decoding_plugin="gdcm")
            left -= values.nbytes
            if left < 0:
                raise MemoryError
        except Exception:  # the one who asked says so
            output.write(b"null\n")
        else:
            about = {
                "shape": values.shape,
                "dtype": values.dtype.str,
                "kind": str(told["photometric_interpretation"]),
            }
            output.write(json.dumps(about).encode() + b"\n" + values.tobytes())
        output.flush()


if __name__ == "__main__":
    main()
