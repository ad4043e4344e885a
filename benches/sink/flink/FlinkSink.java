import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import org.apache.flink.api.common.eventtime.WatermarkStrategy;
import org.apache.flink.api.common.typeinfo.Types;
import org.apache.flink.api.connector.sink2.SinkWriter;
import org.apache.flink.connector.base.sink.writer.ElementConverter;
import org.apache.flink.connector.datagen.source.DataGeneratorSource;
import org.apache.flink.connector.datagen.source.GeneratorFunction;
import org.apache.flink.connector.dynamodb.sink.DynamoDbSink;
import org.apache.flink.connector.dynamodb.sink.DynamoDbSinkBuilder;
import org.apache.flink.connector.dynamodb.sink.DynamoDbWriteRequest;
import org.apache.flink.connector.dynamodb.sink.DynamoDbWriteRequestType;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import software.amazon.awssdk.services.dynamodb.model.AttributeValue;

/** Flink's sink with its defaults, on the items of items.rs. Arguments: endpoint, table, number of items, keys. */
public class FlinkSink {
  private static final int HOT = 1_000;
  private static final String NOTE = "n".repeat(400);

  public static void main(String[] arguments) throws Exception {
    Properties properties = new Properties();
    properties.put("aws.region", "us-east-1");
    properties.put("aws.endpoint", arguments[0]);
    properties.put("aws.http.protocol.version", "HTTP1_1");
    properties.put("aws.credentials.provider", "BASIC");
    properties.put("aws.credentials.provider.basic.accesskeyid", "local");
    properties.put("aws.credentials.provider.basic.secretkey", "local");
    String keys = arguments[3];
    DynamoDbSinkBuilder<Long> sink =
        DynamoDbSink.<Long>builder().setTableName(arguments[1]).setElementConverter(new Items(keys)).setDynamoDbProperties(properties);
    if (!keys.equals("unique")) {
      // Without it, the job fails at the first key that is twice in a batch.
      sink.setOverwriteByPartitionKeys(List.of("pk"));
    }
    StreamExecutionEnvironment flink = StreamExecutionEnvironment.createLocalEnvironment(1);
    GeneratorFunction<Long, Long> count = number -> number;
    DataGeneratorSource<Long> source = new DataGeneratorSource<>(count, Long.parseLong(arguments[2]), Types.LONG);
    flink.fromSource(source, WatermarkStrategy.noWatermarks(), "items").sinkTo(sink.build());
    flink.execute();
  }

  private static class Items implements ElementConverter<Long, DynamoDbWriteRequest> {
    private final String keys;
    private final long[] sums = new long[HOT];

    Items(String keys) {
      this.keys = keys;
      long sum = 0;
      for (int rank = 1; rank <= HOT; rank++) {
        sum += 1_000_000 / rank;
        sums[rank - 1] = sum;
      }
    }

    @Override
    public DynamoDbWriteRequest apply(Long number, SinkWriter.Context context) {
      Map<String, AttributeValue> item = new HashMap<>();
      item.put("pk", AttributeValue.fromS(String.format("item-%08d", key(number))));
      item.put("seq", AttributeValue.fromN(number.toString()));
      item.put("price", AttributeValue.fromN("12.5"));
      item.put("active", AttributeValue.fromBool(true));
      item.put("note", AttributeValue.fromS(NOTE));
      return DynamoDbWriteRequest.builder().setType(DynamoDbWriteRequestType.PUT).setItem(item).build();
    }

    private long key(long number) {
      switch (keys) {
        case "unique":
          return number;
        case "hot":
          return Long.remainderUnsigned(mix(number), HOT);
        default:
          long at = Long.remainderUnsigned(mix(number), sums[HOT - 1]);
          int key = 0;
          while (sums[key] <= at) {
            key++;
          }
          return key;
      }
    }

    private static long mix(long number) {
      long mixed = number + 0x9e3779b97f4a7c15L;
      mixed = (mixed ^ (mixed >>> 30)) * 0xbf58476d1ce4e5b9L;
      mixed = (mixed ^ (mixed >>> 27)) * 0x94d049bb133111ebL;
      return mixed ^ (mixed >>> 31);
    }
  }
}
