import com.fasterxml.jackson.annotation.JsonIgnoreProperties;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.ObjectReader;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.lang.management.ManagementFactory;
import java.nio.ByteBuffer;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.List;
import java.util.Properties;
import java.util.concurrent.CountDownLatch;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.common.serialization.Deserializer;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.utils.Bytes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StoreQueryParameters;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Grouped;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.kstream.TimeWindows;
import org.apache.kafka.streams.state.QueryableStoreTypes;
import org.apache.kafka.streams.state.WindowStore;

/**
 * Kafka Streams: views and interactions per variant and 10-minute window, killed when below the line. One thread; every other setting at its default but for
 * the commit interval (RocksDB state behind a cache, changelog topic).
 *
 * <p>Arguments: bootstrap, topic, kill topic, events, application id, state directory, commit interval in milliseconds.
 */
public final class Engagement {
    static final Duration WINDOW = Duration.ofMinutes(10);
    static final long MIN_INTERACTIONS = 10;
    static final double KILL_RATE = 0.5 * 0.06;

    /** What is needed of an event. */
    @JsonIgnoreProperties(ignoreUnknown = true)
    record Interaction(String variant_id, String kind, String occurred_at, Long count) {}

    /** What a variant has come to in a window. */
    record Counts(long views, long interactions, boolean wasKilled) {
        static final Counts NONE = new Counts(0, 0, false);

        Counts add(Interaction event) {
            if (wasKilled) {
                return this;
            }
            long count = event.count() == null ? 1 : event.count();
            boolean isView = event.kind().equals("view");
            long v = isView ? views + count : views;
            long i = isView ? interactions : interactions + count;
            return new Counts(v, i, i >= MIN_INTERACTIONS && v > 0 && (double) i / v < KILL_RATE);
        }
    }

    /** Time and CPU time when the first event is taken up, when a third is done, when all are. */
    static final class Progress {
        final long events;
        final List<String> marks = new ArrayList<>();
        final CountDownLatch allDone = new CountDownLatch(1);
        private final com.sun.management.OperatingSystemMXBean system = (com.sun.management.OperatingSystemMXBean) ManagementFactory.getOperatingSystemMXBean();
        private long done;
        private long next;

        Progress(long events) {
            this.events = events;
        }

        void begin() {
            if (marks.isEmpty()) {
                mark();
                next = events / 3;
            }
        }

        void add() {
            if (++done == next) {
                mark();
                next = events;
                if (done == events) {
                    allDone.countDown();
                }
            }
        }

        private void mark() {
            marks.add("[" + System.nanoTime() / 1e9 + "," + done + "," + system.getProcessCpuTime() / 1e9 + "]");
        }
    }

    public static void main(String[] arguments) throws Exception {
        Progress progress = new Progress(Long.parseLong(arguments[3]));
        ObjectReader reader = new ObjectMapper().readerFor(Interaction.class);
        Deserializer<Interaction> fromJson = (topic, bytes) -> {
            try {
                return reader.readValue(bytes);
            } catch (IOException error) {
                throw new UncheckedIOException(error);
            }
        };
        Serde<Interaction> interactionSerde = Serdes.serdeFrom((topic, event) -> null, fromJson);
        Serde<Counts> countsSerde = Serdes.serdeFrom(
            (topic, counts) -> ByteBuffer.allocate(17).putLong(counts.views()).putLong(counts.interactions()).put((byte) (counts.wasKilled() ? 1 : 0)).array(),
            (topic, bytes) -> {
                ByteBuffer buffer = ByteBuffer.wrap(bytes);
                return new Counts(buffer.getLong(), buffer.getLong(), buffer.get() == 1);
            });

        StreamsBuilder builder = new StreamsBuilder();
        builder.stream(arguments[1], Consumed.with(Serdes.String(), interactionSerde)
                .withTimestampExtractor((record, before) -> Instant.parse(((Interaction) record.value()).occurred_at()).toEpochMilli()))
            .peek((key, event) -> progress.begin())
            .groupByKey(Grouped.with(Serdes.String(), interactionSerde))
            .windowedBy(TimeWindows.ofSizeAndGrace(WINDOW, WINDOW))
            .aggregate(
                () -> Counts.NONE,
                (key, event, counts) -> {
                    Counts after = counts.add(event);
                    progress.add();
                    return after;
                },
                Materialized.<String, Counts, WindowStore<Bytes, byte[]>>as("engagement").withKeySerde(Serdes.String()).withValueSerde(countsSerde))
            .toStream()
            .filter((window, counts) -> counts.wasKilled())
            .map((window, counts) -> org.apache.kafka.streams.KeyValue.pair(window.key(), "{}"))
            .to(arguments[2], Produced.with(Serdes.String(), Serdes.String()));

        Properties properties = new Properties();
        properties.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, arguments[0]);
        properties.put(StreamsConfig.APPLICATION_ID_CONFIG, arguments[4]);
        properties.put(StreamsConfig.STATE_DIR_CONFIG, arguments[5]);
        properties.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, 1);
        properties.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, Long.parseLong(arguments[6]));
        properties.put(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG, "earliest");

        try (KafkaStreams streams = new KafkaStreams(builder.build(), properties)) {
            streams.setUncaughtExceptionHandler(error -> {
                error.printStackTrace();
                Runtime.getRuntime().halt(1);
                return null;
            });
            streams.start();
            progress.allDone.await();
            Thread.sleep(1_000); // the last event was added up, but perhaps not put into the store yet
            var store = streams.store(StoreQueryParameters.fromNameAndType("engagement", QueryableStoreTypes.<String, Counts>windowStore()));
            List<String> counts = new ArrayList<>();
            try (var all = store.all()) {
                all.forEachRemaining(entry -> counts.add("[\"" + entry.key.key() + "\"," + entry.key.window().start() / 1000 + ","
                    + entry.value.views() + "," + entry.value.interactions() + "," + entry.value.wasKilled() + "]"));
            }
            System.out.println("{\"marks\":[" + String.join(",", progress.marks) + "],\"counts\":[" + String.join(",", counts) + "]}");
        }
    }
}
