import com.fasterxml.jackson.databind.ObjectMapper;
import com.google.protobuf.ByteString;
import com.google.protobuf.DescriptorProtos.DescriptorProto;
import com.google.protobuf.DescriptorProtos.EnumDescriptorProto;
import com.google.protobuf.DescriptorProtos.EnumValueDescriptorProto;
import com.google.protobuf.DescriptorProtos.FieldDescriptorProto;
import com.google.protobuf.DescriptorProtos.FieldDescriptorProto.Label;
import com.google.protobuf.DescriptorProtos.FieldDescriptorProto.Type;
import com.google.protobuf.DescriptorProtos.FileDescriptorProto;
import com.google.protobuf.DescriptorProtos.FileDescriptorSet;
import com.google.protobuf.DescriptorProtos.MessageOptions;
import com.google.protobuf.DescriptorProtos.OneofDescriptorProto;
import com.google.protobuf.Descriptors.Descriptor;
import com.google.protobuf.Descriptors.FieldDescriptor;
import com.google.protobuf.Descriptors.FileDescriptor;
import com.google.protobuf.Duration;
import com.google.protobuf.DurationProto;
import com.google.protobuf.DynamicMessage;
import com.google.protobuf.Int64Value;
import com.google.protobuf.Struct;
import com.google.protobuf.StructProto;
import com.google.protobuf.Timestamp;
import com.google.protobuf.TimestampProto;
import com.google.protobuf.Value;
import com.google.protobuf.WrappersProto;
import java.io.ByteArrayOutputStream;
import java.math.BigDecimal;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Instant;
import java.time.LocalDate;
import java.time.LocalDateTime;
import java.time.LocalTime;
import java.util.ArrayList;
import java.util.Base64;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.apache.avro.generic.GenericData;
import org.apache.avro.generic.GenericDatumWriter;
import org.apache.avro.io.BinaryEncoder;
import org.apache.avro.io.EncoderFactory;
import org.apache.pulsar.client.api.Producer;
import org.apache.pulsar.client.api.PulsarClient;
import org.apache.pulsar.client.api.Schema;
import org.apache.pulsar.client.impl.schema.ProtobufNativeSchemaUtils;
import org.apache.pulsar.client.impl.schema.SchemaInfoImpl;
import org.apache.pulsar.common.schema.KeyValue;
import org.apache.pulsar.common.schema.KeyValueEncodingType;
import org.apache.pulsar.common.schema.SchemaInfo;
import org.apache.pulsar.common.schema.SchemaType;
import software.amazon.awssdk.enhanced.dynamodb.internal.converter.attribute.BigDecimalAttributeConverter;
import software.amazon.awssdk.enhanced.dynamodb.internal.converter.attribute.BooleanAttributeConverter;
import software.amazon.awssdk.enhanced.dynamodb.internal.converter.attribute.ByteArrayAttributeConverter;
import software.amazon.awssdk.enhanced.dynamodb.internal.converter.attribute.ByteAttributeConverter;
import software.amazon.awssdk.enhanced.dynamodb.internal.converter.attribute.DoubleAttributeConverter;
import software.amazon.awssdk.enhanced.dynamodb.internal.converter.attribute.DurationAttributeConverter;
import software.amazon.awssdk.enhanced.dynamodb.internal.converter.attribute.FloatAttributeConverter;
import software.amazon.awssdk.enhanced.dynamodb.internal.converter.attribute.InstantAsStringAttributeConverter;
import software.amazon.awssdk.enhanced.dynamodb.internal.converter.attribute.IntegerAttributeConverter;
import software.amazon.awssdk.enhanced.dynamodb.internal.converter.attribute.LocalDateAttributeConverter;
import software.amazon.awssdk.enhanced.dynamodb.internal.converter.attribute.LocalDateTimeAttributeConverter;
import software.amazon.awssdk.enhanced.dynamodb.internal.converter.attribute.LocalTimeAttributeConverter;
import software.amazon.awssdk.enhanced.dynamodb.internal.converter.attribute.LongAttributeConverter;
import software.amazon.awssdk.enhanced.dynamodb.internal.converter.attribute.PeriodAttributeConverter;
import software.amazon.awssdk.enhanced.dynamodb.internal.converter.attribute.ShortAttributeConverter;
import software.amazon.awssdk.enhanced.dynamodb.internal.converter.attribute.StringAttributeConverter;
import software.amazon.awssdk.services.dynamodb.model.AttributeValue;

/**
 * Messages of every schema, encoded by Pulsar's, Avro's and Protobuf's own classes.
 *
 * <p>{@code Schemas cases} prints one line of JSON for each: schema, key and payload, and under {@code flink} what the AWS converters that Flink's
 * DynamoDB sink uses make of the same Java value. {@code Schemas produce URL PREFIX FILE} sends messages with Pulsar's client, and writes the Protobuf
 * descriptors to the file. {@code Schemas evolve URL TOPIC COUNT ITEMS} sends Avro in batches by three versions of a schema in turn.
 */
public final class Schemas {
    private static final List<Map<String, Object>> CASES = new ArrayList<>();

    public static void main(String[] arguments) throws Exception {
        if (arguments[0].equals("produce")) {
            produce(arguments[1], arguments[2], Path.of(arguments[3]));
            return;
        }
        if (arguments[0].equals("evolve")) {
            evolve(arguments[1], arguments[2], Integer.parseInt(arguments[3]), Integer.parseInt(arguments[4]));
            return;
        }
        primitives();
        avro();
        protobuf();
        keyValues();
        ObjectMapper json = new ObjectMapper();
        for (Map<String, Object> one : CASES) {
            System.out.println(json.writeValueAsString(one));
        }
    }

    private static Map<String, Object> add(String name, SchemaInfo info, byte[] key, byte[] payload) {
        Map<String, Object> one = new LinkedHashMap<>();
        one.put("name", name);
        one.put("kind", info.getType().name());
        one.put("definition", text(info.getSchema()));
        one.put("properties", info.getProperties());
        one.put("key", key == null ? null : text(key));
        one.put("payload", text(payload));
        CASES.add(one);
        return one;
    }

    private static String text(byte[] bytes) {
        return Base64.getEncoder().encodeToString(bytes);
    }

    // --- primitives

    private static <T> void primitive(String name, Schema<T> schema, T value, AttributeValue flink) {
        Map<String, Object> one = add(name, schema.getSchemaInfo(), null, schema.encode(value));
        if (flink != null) {
            one.put("flink", Map.of("value", tagged(flink)));
        }
    }

    private static void primitives() {
        LocalDateTime noon = LocalDateTime.of(2020, 1, 31, 10, 15);
        LocalDateTime exact = LocalDateTime.of(2020, 1, 31, 10, 15, 30, 123_456_789);
        primitive("boolean", Schema.BOOL, true, BooleanAttributeConverter.create().transformFrom(true));
        primitive("int8", Schema.INT8, Byte.MIN_VALUE, ByteAttributeConverter.create().transformFrom(Byte.MIN_VALUE));
        primitive("int16", Schema.INT16, Short.MIN_VALUE, ShortAttributeConverter.create().transformFrom(Short.MIN_VALUE));
        primitive("int32", Schema.INT32, Integer.MIN_VALUE, IntegerAttributeConverter.create().transformFrom(Integer.MIN_VALUE));
        primitive("int64", Schema.INT64, Long.MIN_VALUE, LongAttributeConverter.create().transformFrom(Long.MIN_VALUE));
        primitive("float", Schema.FLOAT, 0.1f, FloatAttributeConverter.create().transformFrom(0.1f));
        primitive("double", Schema.DOUBLE, 1e10, DoubleAttributeConverter.create().transformFrom(1e10));
        primitive("string", Schema.STRING, "é \"😀\"", StringAttributeConverter.create().transformFrom("é \"😀\""));
        primitive("bytes", Schema.BYTES, new byte[] {0, -1}, ByteArrayAttributeConverter.create().transformFrom(new byte[] {0, -1}));
        primitive("date", Schema.DATE, new java.util.Date(1580465730123L), null);
        primitive("time", Schema.TIME, new java.sql.Time(36_930_123L), null);
        primitive("timestamp", Schema.TIMESTAMP, new java.sql.Timestamp(1580465730123L), null);
        for (LocalDateTime at : List.of(noon, exact, noon.plusSeconds(1), exact.withNano(5_000_000), exact.withNano(5_000))) {
            Instant instant = at.toInstant(java.time.ZoneOffset.UTC);
            primitive("instant " + at, Schema.INSTANT, instant, InstantAsStringAttributeConverter.create().transformFrom(instant));
            primitive("local time " + at, Schema.LOCAL_TIME, at.toLocalTime(),
                    LocalTimeAttributeConverter.create().transformFrom(at.toLocalTime()));
            primitive("local date-time " + at, Schema.LOCAL_DATE_TIME, at, LocalDateTimeAttributeConverter.create().transformFrom(at));
        }
        for (String day : List.of("2020-01-31", "1969-12-31", "2024-02-29", "1600-02-29", "9999-12-31", "0001-01-01")) {
            LocalDate date = LocalDate.parse(day);
            primitive("local date " + day, Schema.LOCAL_DATE, date, LocalDateAttributeConverter.create().transformFrom(date));
        }
    }

    // --- Avro

    private static final String ORDER = """
            {"type":"record","name":"Order","namespace":"shop","fields":[
              {"name":"id","type":"string"},
              {"name":"no","type":"null"},
              {"name":"flag","type":"boolean"},
              {"name":"small","type":"int"},
              {"name":"big","type":"long"},
              {"name":"single","type":"float"},
              {"name":"exact","type":"double"},
              {"name":"blob","type":"bytes"},
              {"name":"four","type":{"type":"fixed","name":"Four","size":4}},
              {"name":"state","type":{"type":"enum","name":"State","symbols":["NEW","PAID"]}},
              {"name":"tags","type":{"type":"array","items":"string"}},
              {"name":"counts","type":{"type":"map","values":"long"}},
              {"name":"maybe","type":["null","string"]},
              {"name":"maybeNot","type":["null","string"]},
              {"name":"lines","type":{"type":"array","items":{"type":"record","name":"Line","fields":[
                {"name":"sku","type":"string"},{"name":"state","type":"State"}]}}},
              {"name":"parent","type":["null","Order"],"default":null},
              {"name":"price","type":{"type":"bytes","logicalType":"decimal","precision":38,"scale":2}},
              {"name":"debt","type":{"type":"fixed","name":"Debt","size":16,"logicalType":"decimal","precision":38,"scale":3}},
              {"name":"uuid","type":{"type":"string","logicalType":"uuid"}},
              {"name":"day","type":{"type":"int","logicalType":"date"}},
              {"name":"timeMillis","type":{"type":"int","logicalType":"time-millis"}},
              {"name":"timeMicros","type":{"type":"long","logicalType":"time-micros"}},
              {"name":"atMillis","type":{"type":"long","logicalType":"timestamp-millis"}},
              {"name":"atMicros","type":{"type":"long","logicalType":"timestamp-micros"}},
              {"name":"localMillis","type":{"type":"long","logicalType":"local-timestamp-millis"}},
              {"name":"localMicros","type":{"type":"long","logicalType":"local-timestamp-micros"}},
              {"name":"months","type":{"type":"fixed","name":"Months","size":12,"logicalType":"duration"}},
              {"name":"took","type":{"type":"fixed","name":"Took","size":12,"logicalType":"duration"}}]}""";

    private static byte[] written(org.apache.avro.Schema schema, Object datum) throws Exception {
        ByteArrayOutputStream out = new ByteArrayOutputStream();
        BinaryEncoder encoder = EncoderFactory.get().binaryEncoder(out, null);
        new GenericDatumWriter<>(schema).write(datum, encoder);
        encoder.flush();
        return out.toByteArray();
    }

    private static GenericData.Fixed fixed(org.apache.avro.Schema schema, String field, byte[] bytes) {
        return new GenericData.Fixed(schema.getField(field).schema(), bytes);
    }

    private static GenericData.Record order(org.apache.avro.Schema schema, String id) {
        GenericData.Record line = new GenericData.Record(schema.getField("lines").schema().getElementType());
        org.apache.avro.Schema state = schema.getField("state").schema();
        line.put("sku", "x");
        line.put("state", new GenericData.EnumSymbol(state, "NEW"));
        GenericData.Record order = new GenericData.Record(schema);
        order.put("id", id);
        order.put("flag", true);
        order.put("small", -1);
        order.put("big", Long.MAX_VALUE);
        order.put("single", 0.1f);
        order.put("exact", 1234567.125);
        order.put("blob", ByteBuffer.wrap(new byte[] {0, -1}));
        order.put("four", fixed(schema, "four", new byte[] {1, 2, 3, 4}));
        order.put("state", new GenericData.EnumSymbol(state, "PAID"));
        order.put("tags", List.of("a", "b"));
        order.put("counts", Map.of("k", 5L));
        order.put("maybe", "yes");
        order.put("lines", List.of(line));
        order.put("price", ByteBuffer.wrap(PRICE.unscaledValue().toByteArray()));
        byte[] debt = ByteBuffer.allocate(16).putLong(-1).putLong(-1500).array();
        order.put("debt", fixed(schema, "debt", debt));
        order.put("uuid", "f81d4fae-7dec-11d0-a765-00a0c91e6bf6");
        order.put("day", (int) DAY.toEpochDay());
        order.put("timeMillis", (int) (TIME.toNanoOfDay() / 1_000_000));
        order.put("timeMicros", TIME.toNanoOfDay() / 1000);
        order.put("atMillis", AT.toEpochMilli());
        order.put("atMicros", AT.getEpochSecond() * 1_000_000 + AT.getNano() / 1000);
        order.put("localMillis", AT.toEpochMilli());
        order.put("localMicros", AT.getEpochSecond() * 1_000_000 + AT.getNano() / 1000);
        ByteBuffer months = ByteBuffer.allocate(12).order(java.nio.ByteOrder.LITTLE_ENDIAN).putInt(14);
        order.put("months", fixed(schema, "months", months.array()));
        ByteBuffer took = ByteBuffer.allocate(12).order(java.nio.ByteOrder.LITTLE_ENDIAN).putInt(0).putInt(1).putInt(7);
        order.put("took", fixed(schema, "took", took.array()));
        return order;
    }

    private static final BigDecimal PRICE = new BigDecimal("123456789012345678901234567890123456.10");
    private static final LocalDate DAY = LocalDate.of(2020, 1, 31);
    private static final LocalTime TIME = LocalTime.of(10, 15);
    private static final Instant AT = Instant.parse("2020-01-31T10:15:00.123456Z");

    private static void avro() throws Exception {
        org.apache.avro.Schema schema = new org.apache.avro.Schema.Parser().parse(ORDER);
        GenericData.Record order = order(schema, "outer");
        order.put("parent", order(schema, "inner"));
        Map<String, Object> one = add("avro", Schema.NATIVE_AVRO(schema).getSchemaInfo(), null, written(schema, order));
        LocalDateTime millis = LocalDateTime.ofInstant(Instant.ofEpochMilli(AT.toEpochMilli()), java.time.ZoneOffset.UTC);
        Map<String, Object> flink = new LinkedHashMap<>();
        flink.put("id", tagged(StringAttributeConverter.create().transformFrom("outer")));
        flink.put("flag", tagged(BooleanAttributeConverter.create().transformFrom(true)));
        flink.put("small", tagged(IntegerAttributeConverter.create().transformFrom(-1)));
        flink.put("big", tagged(LongAttributeConverter.create().transformFrom(Long.MAX_VALUE)));
        flink.put("single", tagged(FloatAttributeConverter.create().transformFrom(0.1f)));
        flink.put("exact", tagged(DoubleAttributeConverter.create().transformFrom(1234567.125)));
        flink.put("blob", tagged(ByteArrayAttributeConverter.create().transformFrom(new byte[] {0, -1})));
        flink.put("price", tagged(BigDecimalAttributeConverter.create().transformFrom(PRICE)));
        flink.put("day", tagged(LocalDateAttributeConverter.create().transformFrom(DAY)));
        flink.put("timeMillis", tagged(LocalTimeAttributeConverter.create().transformFrom(TIME)));
        flink.put("timeMicros", tagged(LocalTimeAttributeConverter.create().transformFrom(TIME)));
        flink.put("atMicros", tagged(InstantAsStringAttributeConverter.create().transformFrom(AT)));
        flink.put("localMillis", tagged(LocalDateTimeAttributeConverter.create().transformFrom(millis)));
        flink.put("months", tagged(PeriodAttributeConverter.create().transformFrom(java.time.Period.of(1, 2, 0))));
        flink.put("took", tagged(DurationAttributeConverter.create().transformFrom(java.time.Duration.ofDays(1).plusMillis(7))));
        one.put("flink", flink);
        org.apache.avro.Schema list = new org.apache.avro.Schema.Parser().parse("{\"type\":\"array\",\"items\":\"int\"}");
        add("avro array", Schema.NATIVE_AVRO(list).getSchemaInfo(), null, written(list, new GenericData.Array<>(list, List.of(1, 2))));
    }

    // --- Protobuf

    private static FieldDescriptorProto.Builder field(String name, int number, Type type, Label label) {
        return FieldDescriptorProto.newBuilder().setName(name).setNumber(number).setType(type).setLabel(label);
    }

    private static FieldDescriptorProto.Builder one(String name, int number, Type type) {
        return field(name, number, type, Label.LABEL_OPTIONAL);
    }

    private static Descriptor orderDescriptor() throws Exception {
        DescriptorProto line = DescriptorProto.newBuilder().setName("Line").addField(one("sku", 1, Type.TYPE_STRING))
                .addField(one("n", 2, Type.TYPE_UINT32)).build();
        DescriptorProto entry = DescriptorProto.newBuilder().setName("CountsEntry").addField(one("key", 1, Type.TYPE_STRING))
                .addField(one("value", 2, Type.TYPE_INT32)).setOptions(MessageOptions.newBuilder().setMapEntry(true)).build();
        DescriptorProto order = DescriptorProto.newBuilder().setName("Order").addNestedType(line).addNestedType(entry)
                .addEnumType(EnumDescriptorProto.newBuilder().setName("State")
                        .addValue(EnumValueDescriptorProto.newBuilder().setName("NEW").setNumber(0))
                        .addValue(EnumValueDescriptorProto.newBuilder().setName("PAID").setNumber(1)))
                .addOneofDecl(OneofDescriptorProto.newBuilder().setName("payment"))
                .addOneofDecl(OneofDescriptorProto.newBuilder().setName("_note"))
                .addField(one("id", 1, Type.TYPE_STRING))
                .addField(one("big", 2, Type.TYPE_INT64))
                .addField(one("unsigned", 3, Type.TYPE_UINT64))
                .addField(one("price", 4, Type.TYPE_DOUBLE))
                .addField(one("blob", 5, Type.TYPE_BYTES))
                .addField(one("state", 6, Type.TYPE_ENUM).setTypeName(".shop.Order.State"))
                .addField(field("lines", 7, Type.TYPE_MESSAGE, Label.LABEL_REPEATED).setTypeName(".shop.Order.Line"))
                .addField(field("counts", 8, Type.TYPE_MESSAGE, Label.LABEL_REPEATED).setTypeName(".shop.Order.CountsEntry"))
                .addField(one("card", 9, Type.TYPE_STRING).setOneofIndex(0))
                .addField(one("cash", 10, Type.TYPE_SINT64).setOneofIndex(0))
                .addField(one("at", 11, Type.TYPE_MESSAGE).setTypeName(".google.protobuf.Timestamp"))
                .addField(one("took", 12, Type.TYPE_MESSAGE).setTypeName(".google.protobuf.Duration"))
                .addField(one("extra", 13, Type.TYPE_MESSAGE).setTypeName(".google.protobuf.Struct"))
                .addField(one("note", 14, Type.TYPE_STRING).setOneofIndex(1).setProto3Optional(true))
                .addField(field("packed", 15, Type.TYPE_INT32, Label.LABEL_REPEATED))
                .addField(one("wrapped", 16, Type.TYPE_MESSAGE).setTypeName(".google.protobuf.Int64Value"))
                .addField(one("flag", 17, Type.TYPE_BOOL))
                .addField(one("single", 18, Type.TYPE_FLOAT))
                .build();
        FileDescriptorProto file = FileDescriptorProto.newBuilder().setName("shop/order.proto").setPackage("shop").setSyntax("proto3")
                .addDependency("google/protobuf/timestamp.proto").addDependency("google/protobuf/duration.proto")
                .addDependency("google/protobuf/struct.proto").addDependency("google/protobuf/wrappers.proto").addMessageType(order).build();
        FileDescriptor[] dependencies = {TimestampProto.getDescriptor(), DurationProto.getDescriptor(), StructProto.getDescriptor(),
            WrappersProto.getDescriptor()};
        return FileDescriptor.buildFrom(file, dependencies).findMessageTypeByName("Order");
    }

    private static DynamicMessage orderMessage(Descriptor order, String id) {
        Descriptor line = order.findNestedTypeByName("Line");
        Descriptor entry = order.findNestedTypeByName("CountsEntry");
        DynamicMessage.Builder message = DynamicMessage.newBuilder(order);
        Map<String, Object> fields = new LinkedHashMap<>();
        fields.put("id", id);
        fields.put("big", Long.MIN_VALUE);
        fields.put("unsigned", -1L);
        fields.put("price", 2.5);
        fields.put("blob", ByteString.copyFrom(new byte[] {0, -1}));
        fields.put("state", order.findEnumTypeByName("State").findValueByName("PAID"));
        fields.put("cash", -3L);
        fields.put("at", Timestamp.newBuilder().setSeconds(AT.getEpochSecond()).setNanos(AT.getNano()).build());
        fields.put("took", Duration.newBuilder().setSeconds(3).setNanos(500_000_000).build());
        fields.put("extra", Struct.newBuilder().putFields("a", Value.newBuilder().setNumberValue(1.5).build())
                .putFields("z", Value.newBuilder().setNullValueValue(0).build()).build());
        fields.put("wrapped", Int64Value.of(0));
        fields.forEach((name, value) -> message.setField(order.findFieldByName(name), value));
        FieldDescriptor lines = order.findFieldByName("lines");
        message.addRepeatedField(lines, DynamicMessage.newBuilder(line).setField(line.findFieldByName("sku"), "x").build());
        message.addRepeatedField(order.findFieldByName("counts"), DynamicMessage.newBuilder(entry)
                .setField(entry.findFieldByName("key"), "k").setField(entry.findFieldByName("value"), 5).build());
        message.addRepeatedField(order.findFieldByName("packed"), -1);
        message.addRepeatedField(order.findFieldByName("packed"), 300);
        return message.build();
    }

    private static SchemaInfo nativeInfo(Descriptor order) {
        return SchemaInfoImpl.builder().name("order").type(SchemaType.PROTOBUF_NATIVE).schema(ProtobufNativeSchemaUtils.serialize(order))
                .properties(Map.of()).build();
    }

    private static void protobuf() throws Exception {
        Descriptor order = orderDescriptor();
        add("protobuf native", nativeInfo(order), null, orderMessage(order, "a").toByteArray());
        add("protobuf defaults", nativeInfo(order), null, new byte[0]);
    }

    // --- key and value

    private static void keyValues() throws Exception {
        org.apache.avro.Schema order = new org.apache.avro.Schema.Parser().parse(SMALL);
        GenericData.Record record = small(order, "r", 1);
        Schema<byte[]> avro = Schema.NATIVE_AVRO(order);
        Schema<KeyValue<String, byte[]>> inline = Schema.KeyValue(Schema.STRING, avro, KeyValueEncodingType.INLINE);
        add("inline", inline.getSchemaInfo(), null, inline.encode(new KeyValue<>("k", written(order, record))));
        add("inline null value", inline.getSchemaInfo(), null, inline.encode(new KeyValue<>("k", null)));
        add("inline null key", inline.getSchemaInfo(), null, inline.encode(new KeyValue<>(null, written(order, record))));
        Schema<KeyValue<byte[], Long>> separated = Schema.KeyValue(avro, Schema.INT64, KeyValueEncodingType.SEPARATED);
        add("separated", separated.getSchemaInfo(), avro.encode(written(order, record)), Schema.INT64.encode(7L));
        add("separated null key", separated.getSchemaInfo(), null, Schema.INT64.encode(7L));
    }

    private static final String SMALL = """
            {"type":"record","name":"Small","fields":[{"name":"id","type":"string"},{"name":"v","type":"long"}]}""";
    private static final String GROWN = """
            {"type":"record","name":"Small","fields":[{"name":"at","type":{"type":"long","logicalType":"timestamp-millis"},"default":0},
             {"name":"id","type":"string"},{"name":"v","type":"long"}]}""";

    private static GenericData.Record small(org.apache.avro.Schema schema, String id, long v) {
        GenericData.Record record = new GenericData.Record(schema);
        record.put("id", id);
        record.put("v", v);
        if (schema.getField("at") != null) {
            record.put("at", AT.toEpochMilli());
        }
        return record;
    }

    // --- the client

    /** A schema whose values are encoded already. */
    private record Encoded(SchemaInfo info) implements Schema<byte[]> {
        @Override
        public byte[] encode(byte[] message) {
            return message;
        }

        @Override
        public SchemaInfo getSchemaInfo() {
            return info;
        }

        @Override
        public Schema<byte[]> clone() {
            return this;
        }
    }

    private static <T> Producer<T> producer(PulsarClient client, Schema<T> schema, String topic) throws Exception {
        return client.newProducer(schema).topic(topic).enableBatching(true).batchingMaxPublishDelay(10, java.util.concurrent.TimeUnit.SECONDS)
                .create();
    }

    private static final String SHRUNK = """
            {"type":"record","name":"Small","fields":[{"name":"v","type":"long"},{"name":"id","type":"string"},
             {"name":"note","type":["null","string"],"default":null}]}""";

    /** Message {@code n} is version {@code n} of item {@code n % items}. The schema changes each 500 messages; each batch has 100. */
    private static void evolve(String url, String topic, int count, int items) throws Exception {
        List<org.apache.avro.Schema> schemas = new ArrayList<>();
        List<Producer<byte[]>> producers = new ArrayList<>();
        try (PulsarClient client = PulsarClient.builder().serviceUrl(url).build()) {
            for (String text : List.of(SMALL, GROWN, SHRUNK)) {
                org.apache.avro.Schema schema = new org.apache.avro.Schema.Parser().parse(text);
                schemas.add(schema);
                producers.add(producer(client, Schema.NATIVE_AVRO(schema), topic));
            }
            for (int n = 0; n < count; n++) {
                int version = n / 500 % 3;
                org.apache.avro.Schema schema = schemas.get(version);
                GenericData.Record record = new GenericData.Record(schema);
                record.put("id", "item-" + n % items);
                record.put("v", (long) n);
                if (version == 1) {
                    record.put("at", AT.toEpochMilli());
                }
                producers.get(version).newMessage().key("item-" + n % items).value(written(schema, record)).sendAsync();
                if (n % 100 == 99) {
                    producers.get(version).flush();
                }
            }
        }
    }

    /** As Pulsar's PROTOBUF schema has it: an Avro rendering, which tells nothing of the messages on the wire. */
    private static SchemaInfo protobufInfo() {
        return SchemaInfoImpl.builder().name("order").type(SchemaType.PROTOBUF).schema(SMALL.getBytes(StandardCharsets.UTF_8))
                .properties(Map.of()).build();
    }

    private static FileDescriptorSet descriptors(Descriptor order) {
        FileDescriptorSet.Builder all = FileDescriptorSet.newBuilder();
        order.getFile().getDependencies().forEach(dependency -> all.addFile(dependency.toProto()));
        return all.addFile(order.getFile().toProto()).build();
    }

    /** Each flush is a batch. */
    private static void produce(String url, String prefix, Path descriptors) throws Exception {
        org.apache.avro.Schema before = new org.apache.avro.Schema.Parser().parse(SMALL);
        org.apache.avro.Schema after = new org.apache.avro.Schema.Parser().parse(GROWN);
        try (PulsarClient client = PulsarClient.builder().serviceUrl(url).build()) {
            Producer<byte[]> old = producer(client, Schema.NATIVE_AVRO(before), prefix + "-avro");
            for (String id : List.of("avro-1", "avro-gone", "avro-2")) {
                old.newMessage().key(id).value(written(before, small(before, id, 1))).sendAsync();
            }
            old.newMessage().key("avro-gone").value(null).sendAsync();
            old.flush();
            Producer<byte[]> grown = producer(client, Schema.NATIVE_AVRO(after), prefix + "-avro");
            grown.newMessage().key("avro-2").value(written(after, small(after, "avro-2", 2))).sendAsync();
            grown.newMessage().key("avro-3").value(written(after, small(after, "avro-3", 2))).sendAsync();
            grown.flush();
            old.newMessage().key("avro-4").value(written(before, small(before, "avro-4", 3))).send();

            for (KeyValueEncodingType encoding : KeyValueEncodingType.values()) {
                Schema<KeyValue<String, Long>> schema = Schema.KeyValue(Schema.STRING, Schema.INT64, encoding);
                Producer<KeyValue<String, Long>> pairs = producer(client, schema, prefix + "-" + encoding);
                pairs.newMessage().value(new KeyValue<>(encoding + "-1", Long.MAX_VALUE)).sendAsync();
                pairs.newMessage().value(new KeyValue<>(encoding + "-gone", 1L)).sendAsync();
                pairs.newMessage().value(new KeyValue<>(encoding + "-gone", null)).sendAsync();
                pairs.newMessage().value(new KeyValue<>(encoding + "-2", 2L)).sendAsync();
                pairs.flush();
            }

            Descriptor order = orderDescriptor();
            Producer<byte[]> messages = producer(client, new Encoded(nativeInfo(order)), prefix + "-protobuf");
            messages.send(orderMessage(order, "protobuf-1").toByteArray());
            Files.write(descriptors, descriptors(order).toByteArray());
            Producer<byte[]> described = producer(client, new Encoded(protobufInfo()), prefix + "-described");
            described.newMessage().value(orderMessage(order, "described-1").toByteArray()).sendAsync();
            described.newMessage().value(orderMessage(order, "described-2").toByteArray()).sendAsync();
            described.flush();
            Producer<String> text = producer(client, Schema.STRING, prefix + "-string");
            text.send("{\"id\": \"string-1\", \"n\": 1.10}");
        }
    }

    private static Map<String, Object> tagged(AttributeValue value) {
        if (value.n() != null) {
            return Map.of("N", value.n());
        }
        if (value.bool() != null) {
            return Map.of("BOOL", value.bool());
        }
        return value.b() != null ? Map.of("B", text(value.b().asByteArray())) : Map.of("S", value.s());
    }
}
