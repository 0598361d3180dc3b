"""How a sample's id stands in a path: with its slashes and, other than with Starlette's `path`, its line breaks."""

from starlette.convertors import PathConvertor, register_url_convertor

SAMPLE_ID = "{sample_id:sample}"


class _SampleId(PathConvertor):
    regex = "(?s:.*)"


register_url_convertor("sample", _SampleId())
