"""`wheelpit chat`, as the person at the keyboard sees it."""

import signal
import socket

import pytest

from tests.cli.command import run
from wheelpit.cli.chat import Conversation, _printable
from wheelpit.cli.chat_client import ChatClient
from wheelpit.errors import ClientError, ConfigError, ServerError


def closed_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def test_an_answer_streams_and_ctrl_d_leaves(server, open_terminal):
    terminal = open_terminal(
        "chat", "--url", server.url, "--system", "Be kind.", "--temperature", "0.5"
    )
    terminal.wait_for("tiny at http://127.0.0.1")
    terminal.wait_for("> ")
    terminal.type("hi\n")
    terminal.wait_for("Hello 🙃\n")
    terminal.wait_for("> ")
    terminal.type("again\n")
    terminal.wait_for("Hello 🙃\n")
    terminal.wait_for("> ")
    terminal.type("\x04")
    assert terminal.close() == 0
    assert server.bodies[1] == {
        "model": "tiny",
        "temperature": 0.5,
        "stream": True,
        "messages": [
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": "hi"},
            {"role": "assistant", "content": "Hello 🙃"},
            {"role": "user", "content": "again"},
        ],
    }


def test_ctrl_c_stops_the_answer_and_the_chat_goes_on(server, open_terminal):
    server.is_endless = True
    terminal = open_terminal("chat", "--url", server.url)
    terminal.wait_for("> ")
    terminal.type("go on for ever\n")
    terminal.wait_for("🙃 🙃 🙃")
    terminal.type("\x03")
    terminal.wait_for("[stopped]")
    assert server.client_left.wait(10)
    server.is_endless = False
    terminal.type("and now?\n")
    terminal.wait_for("Hello 🙃\n")
    assert server.bodies[1]["messages"][1]["content"].startswith("Hello 🙃 🙃")
    terminal.type("/quit\n")
    assert terminal.close() == 0


def test_ctrl_c_at_the_prompt_drops_the_line(server, open_terminal):
    terminal = open_terminal("chat", "--url", server.url)
    terminal.wait_for("> ")
    terminal.type("never mind")
    terminal.wait_for("never mind")
    terminal.interrupt("> ")
    terminal.type("/quit\n")
    assert terminal.close() == 0
    assert server.bodies == []


def test_reset_forgets_and_help_helps(server):
    done = run("chat", "--url", server.url, typed="one\n/reset\n/help\ntwo\n\n/quit\nthree\n")
    assert done.returncode == 0
    assert "/reset   forget the conversation" in done.stdout
    assert [len(body["messages"]) for body in server.bodies] == [1, 1]


def test_a_pipe_gets_answers_only(server):
    done = run("chat", "--url", server.url, "--model", "other", typed="hi\nthere")
    assert done.stdout == "Hello 🙃\nHello 🙃\n"
    assert server.bodies[0]["model"] == "other"


def test_no_server_says_how_to_start_one():
    port = closed_port()
    done = run("chat", "--url", f"http://127.0.0.1:{port}")
    assert done.returncode == 1
    assert done.stderr == (
        f"wheelpit: error: no server is listening at http://127.0.0.1:{port}: start one with "
        "`wheelpit serve`, or name another with --url\n"
    )


def test_a_missing_key_is_explained_and_the_environment_has_it(server):
    server.api_key = "secret"
    done = run("chat", "--url", server.url, typed="hi\n")
    assert done.returncode == 2
    assert "wants an API key: give --api-key or set WHEELPIT_API_KEY" in done.stderr
    assert (
        run("chat", "--url", server.url, typed="hi\n", WHEELPIT_API_KEY="secret").stdout
        == "Hello 🙃\n"
    )
    assert run("chat", "--url", server.url, "--api-key", "secret", typed="hi\n").returncode == 0


def test_a_refused_question_is_reported_and_can_be_asked_again(server):
    server.status = 503
    done = run("chat", "--url", server.url, typed="one\ntwo\n")
    assert done.returncode == 0
    assert f"wheelpit: error: {server.url} answered 503: too much" in done.stderr
    assert [len(body["messages"]) for body in server.bodies] == [1, 1]


def test_an_error_in_mid_stream_keeps_what_came(server):
    server.error = {"message": "the engine died"}
    client = ChatClient(server.url)
    conversation = Conversation(client, {"model": "tiny"}, None)
    with pytest.raises(ServerError, match="broke off: the engine died"):
        list(conversation.ask("hi"))
    assert conversation.messages[-1] == {"role": "assistant", "content": "Hello 🙃"}


@pytest.mark.parametrize("url", ["ftp://x", "http://", "http://x:notaport"])
def test_a_wrong_url_is_a_mistake_of_the_caller(url):
    with pytest.raises(ConfigError, match="must be like http://127"):
        ChatClient(url)


@pytest.mark.parametrize("suffix", ["", "/", "/v1", "/v1/"])
def test_the_url_may_end_in_v1(server, suffix):
    assert ChatClient(server.url + suffix).model_names() == ["tiny", "other"]


def test_an_unknown_host_is_named():
    with pytest.raises(ServerError, match=r"not known|cannot reach"):
        ChatClient("http://no-such-host.invalid").model_names()


def test_something_that_is_no_such_server_is_recognised():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        import threading

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(ServerError, match="not an OpenAI-compatible server"):
            ChatClient(f"http://127.0.0.1:{port}").model_names()
        thread.join()


def test_a_client_error_is_not_a_server_error(server):
    server.status = 400
    with pytest.raises(ClientError, match="400: too much"):
        list(ChatClient(server.url).stream_chat({"messages": []}))


def test_answers_cannot_drive_the_terminal():
    assert _printable("a\x1b[2Jb\x07\r\n\tc\x7f\x9b") == "a[2Jb\n\tc"


def test_a_terminated_chat_leaves_no_traceback(server, open_terminal):
    terminal = open_terminal("chat", "--url", server.url)
    terminal.wait_for("> ")
    terminal.process.send_signal(signal.SIGTERM)
    assert terminal.close() == -signal.SIGTERM
