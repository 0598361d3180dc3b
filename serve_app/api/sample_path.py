"""A sample's id in a URL path; it may hold slashes and, unlike Starlette's `path`, line breaks."""

from starlette.convertors import PathConvertor, register_url_convertor

SAMPLE_ID = "{sample_id:sample}"


class _SampleId(PathConvertor):
    regex = "(?s:.*)"


register_url_convertor("sample", _SampleId())
