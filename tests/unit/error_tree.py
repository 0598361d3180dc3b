"""Every class of error that the service has."""

from serve_app.errors import ServiceError


def every_error(base: type[ServiceError] = ServiceError) -> list[type[ServiceError]]:
    """The class and all below it; those of other modules are found once the modules are imported."""
    return [base, *(error for child in base.__subclasses__() for error in every_error(child))]
