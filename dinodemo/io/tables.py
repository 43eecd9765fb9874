"""Tables as files: csv for people and spreadsheets, Parquet for pandas, DuckDB and data sets."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any


def table_bytes(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> bytes:
    """Return a table in the format that the name of its file asks for.

    Args:
        path: Of the file, which is not written here; .parquet is Parquet, everything else csv.
        columns: Their names.
        rows: Values in the order of the columns.
    """
    if path.suffix.lower() == ".parquet":
        rows = list(rows)
        return parquet({name: [row[i] for row in rows] for i, name in enumerate(columns)})
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return text.getvalue().encode()


def parquet(columns: Mapping[str, Any], about: Mapping[str, str] | None = None) -> bytes:
    """Return columns as a Parquet file.

    Args:
        columns: Lists or pyarrow arrays of one length, by their names.
        about: Notes that are kept beside the schema.
    """
    import pyarrow as pa
    from pyarrow.parquet import write_table

    table = pa.table(dict(columns))
    buffer = io.BytesIO()
    write_table(table.replace_schema_metadata(dict(about)) if about else table, buffer)
    return buffer.getvalue()
