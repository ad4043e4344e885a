package org.apache.pulsar.io.dynamodb;

import java.io.DataInputStream;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.Semaphore;
import org.apache.pulsar.client.api.Message;
import org.apache.pulsar.client.api.schema.GenericObject;
import org.apache.pulsar.common.io.SinkConfig;
import org.apache.pulsar.common.schema.SchemaInfo;
import org.apache.pulsar.common.schema.SchemaType;
import org.apache.pulsar.functions.api.Record;
import org.apache.pulsar.io.core.Sink;
import org.apache.pulsar.io.core.SinkContext;

/** Writes the messages of topics with any schema to a DynamoDB table. */
public class DynamoDBSink implements Sink<GenericObject> {
    private static final int MESSAGE_COST = 1024;

    /** What the process has not answered. */
    private final Map<Long, Pending> pending = new ConcurrentHashMap<>();
    private final Set<Object> schemas = new HashSet<>();
    private NativeProcess process;
    private Semaphore room;
    private long lastId;

    private record Pending(Record<GenericObject> message, int cost) { }

    @Override
    public void open(Map<String, Object> configs, SinkContext context) throws Exception {
        SinkConfig connector = context.getSinkConfig();
        if (connector.getTransformFunctionClassName() != null) {
            throw new IllegalArgumentException("This sink takes no transform function: Pulsar hands over what it returns without the message, and so "
                    + "without its id, time and schema. Remove transformFunction, and transform with a function of its own, which writes to another topic");
        }
        process = new NativeProcess("sink", connector, configs, connector.getSecrets(), context, this::answered);
        room = new Semaphore(process.credit);
    }

    private void answered(int type, DataInputStream ids) throws IOException {
        if (type != Frames.ACK && type != Frames.FAIL) {
            throw new IOException("a frame of the unknown type " + type + ": use the executable of the same archive");
        }
        while (ids.available() > 0) {
            Pending answered = pending.remove(ids.readLong());
            room.release(answered.cost);
            if (type == Frames.ACK) {
                answered.message.ack();
            } else {
                answered.message.fail();
            }
        }
    }

    @Override
    public void write(Record<GenericObject> record) throws Exception {
        Message<GenericObject> message = record.getMessage().orElseThrow();
        int cost = Math.min(process.credit, MESSAGE_COST + message.size());
        room.acquire(cost);
        tellSchema(message);
        long id = ++lastId;
        pending.put(id, new Pending(record, cost));
        process.say(Frames.MESSAGE, frame -> {
            frame.writeLong(id);
            Frames.put(frame, message.getMessageId().toByteArray());
            frame.writeLong(message.getPublishTime());
            frame.writeLong(message.getEventTime() > 0 ? message.getEventTime() : -1);
            Frames.put(frame, message.getTopicName());
            Frames.put(frame, message.hasKey() ? message.getKey() : null);
            frame.writeBoolean(message.hasBase64EncodedKey());
            Frames.put(frame, message.hasOrderingKey() ? message.getOrderingKey() : null);
            Frames.put(frame, message.getSchemaVersion());
            Frames.put(frame, message.getProducerName());
            frame.writeLong(message.getSequenceId());
            Frames.put(frame, message.getProperties());
            Frames.put(frame, message.size() == 0 && message.getValue() == null ? null : message.getData());
        });
    }

    /** Once, before the first message that was written with it. */
    private void tellSchema(Message<GenericObject> message) {
        byte[] version = message.getSchemaVersion();
        if (version == null || !schemas.add(List.of(message.getTopicName(), ByteBuffer.wrap(version)))) {
            return;
        }
        SchemaInfo info = message.getReaderSchema().map(schema -> schema.getSchemaInfo()).orElse(null);
        process.say(Frames.SCHEMA, frame -> {
            Frames.put(frame, message.getTopicName());
            Frames.put(frame, version);
            Frames.put(frame, (info == null ? SchemaType.NONE : info.getType()).name());
            Frames.put(frame, info == null ? null : info.getSchema());
            Frames.put(frame, info == null ? Map.of() : info.getProperties());
        });
    }

    @Override
    public void close() {
        if (process != null) {
            process.stop();
            process.close();
        }
    }
}
