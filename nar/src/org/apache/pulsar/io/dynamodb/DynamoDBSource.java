package org.apache.pulsar.io.dynamodb;

import java.io.DataInputStream;
import java.io.IOException;
import java.util.Map;
import java.util.Optional;
import org.apache.pulsar.common.io.SourceConfig;
import org.apache.pulsar.functions.api.Record;
import org.apache.pulsar.io.core.PushSource;
import org.apache.pulsar.io.core.SourceContext;

/** Publishes the changes of a DynamoDB table. */
public class DynamoDBSource extends PushSource<byte[]> {
    private NativeProcess process;

    @Override
    public void open(Map<String, Object> configs, SourceContext context) throws Exception {
        SourceConfig connector = context.getSourceConfig();
        process = new NativeProcess("source", connector, configs, connector.getSecrets(), context, this::received);
    }

    /** What is here is published even when its lease is lost meanwhile, so not much is. */
    @Override
    public int getQueueLength() {
        return 256;
    }

    private void received(int type, DataInputStream body) throws IOException {
        if (type != Frames.RECORD) {
            throw new IOException("a frame of the unknown type " + type + ": use the executable of the same archive");
        }
        long id = body.readLong();
        long sequence = body.readLong();
        long eventTime = body.readLong();
        consume(new Change(process, id, Optional.of(sequence).filter(is -> is >= 0), Optional.of(eventTime).filter(is -> is >= 0),
                Optional.ofNullable(Frames.text(body)), Optional.ofNullable(Frames.text(body)), Optional.ofNullable(Frames.text(body)),
                Frames.properties(body), Frames.bytes(body)));
    }

    @Override
    public void close() {
        if (process != null) {
            process.stop();
            // Nobody will read them: without an answer the process would wait for it.
            Thread returning = process.daemon("return", () -> {
                while (true) {
                    read().fail();
                }
            });
            process.close();
            returning.interrupt();
        }
    }

    /** One message on its way. Its parts have the names under which Pulsar asks for them. */
    private record Change(NativeProcess from, long id, Optional<Long> getRecordSequence, Optional<Long> getEventTime,
                          Optional<String> getPartitionId, Optional<String> getDestinationTopic, Optional<String> getKey,
                          Map<String, String> getProperties, byte[] getValue) implements Record<byte[]> {
        @Override
        public void ack() {
            from.say(Frames.ACK, out -> out.writeLong(id));
        }

        @Override
        public void fail() {
            from.say(Frames.FAIL, out -> out.writeLong(id));
        }
    }
}
