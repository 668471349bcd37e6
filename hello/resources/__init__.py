"""One Falcon resource class per URI."""
