#!/bin/sh
# Gives each of the project's Kafka users what it needs, and nothing else. Needs a broker with an authorizer, and the right to add ACLs:
#   BOOTSTRAP=kafka-1:9092 ADMIN=admin.properties deploy/kafka-acls.sh
# PREFIX and APP_ID are EARLY_KILL_TOPIC_PREFIX and EARLY_KILL_APP_ID; the names of the users may be changed here.
set -eu
PREFIX=${PREFIX:-}
APP_ID=${APP_ID:-${PREFIX}early-kill}
SETUP=early-kill-setup           # runs `early-kill topics`
MONITOR=early-kill-monitor       # worker --role monitor, with the HTTP API
SINK=early-kill-sink             # worker --role sink
PUBLISHER=early-kill-publisher   # programs that publish: threads_adaptor, `early-kill publish`
SUBSCRIBER=early-kill-subscriber # programs that hear of kills, in consumer groups called kills-…

allow() {
    user=$1
    shift
    "${KAFKA_ACLS:-kafka-acls.sh}" --bootstrap-server "$BOOTSTRAP" --command-config "$ADMIN" --add --allow-principal "User:$user" "$@"
}

for topic in variant_posted interaction monitoring_control variant_killed monitoring_record dead_letter; do
    allow $SETUP --operation Create --operation Describe --operation DescribeConfigs --topic "$PREFIX$topic"
    allow $MONITOR --operation Describe --operation DescribeConfigs --topic "$PREFIX$topic"
    allow $SINK --operation Describe --operation DescribeConfigs --topic "$PREFIX$topic"
done

allow $MONITOR --operation Read --topic "${PREFIX}variant_posted" --topic "${PREFIX}interaction" --topic "${PREFIX}monitoring_control"
allow $MONITOR --operation Write --topic "${PREFIX}variant_killed" --topic "${PREFIX}monitoring_record" --topic "${PREFIX}dead_letter"
allow $MONITOR --operation Write --topic "${PREFIX}variant_posted" --topic "${PREFIX}monitoring_control" # the API's start and stop
allow $MONITOR --operation Create --operation Read --operation Write --resource-pattern-type prefixed --topic "$APP_ID-"
allow $MONITOR --operation Read --group "$APP_ID"

allow $SINK --operation Read --topic "${PREFIX}monitoring_record"
allow $SINK --operation Write --topic "${PREFIX}dead_letter"
allow $SINK --operation Read --group "$APP_ID-sink"

allow $PUBLISHER --operation Write --topic "${PREFIX}variant_posted" --topic "${PREFIX}interaction"

allow $SUBSCRIBER --operation Read --topic "${PREFIX}variant_killed"
allow $SUBSCRIBER --operation Read --resource-pattern-type prefixed --group kills-
