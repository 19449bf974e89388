// A client whose retries get through the restart of a node's network agent.
//
//	java Client.java URL [SECONDS TO CONNECT] [ATTEMPTS]
import java.io.IOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.time.Duration;
import java.util.concurrent.ThreadLocalRandom;

public class Client {
  public static void main(String[] words) throws Exception {
    long connect = words.length > 1 ? Math.round(Double.parseDouble(words[1]) * 1000) : 2000;
    int attempts = words.length > 2 ? Integer.parseInt(words[2]) : 20;
    // Without connectTimeout it waits for the kernel, two minutes.
    HttpClient client = HttpClient.newBuilder().connectTimeout(Duration.ofMillis(connect)).build();
    HttpRequest request = HttpRequest.newBuilder(URI.create(words[0])).build();
    long begin = System.nanoTime();
    for (int attempt = 1; ; attempt++) {
      try {
        int status = client.send(request, HttpResponse.BodyHandlers.discarding()).statusCode();
        System.out.printf("%d after %.1f s, attempt %d%n", status, (System.nanoTime() - begin) / 1e9, attempt);
        return;
      } catch (IOException error) {
        if (attempt >= attempts) {
          System.out.printf("failed after %.1f s, attempt %d: %s%n", (System.nanoTime() - begin) / 1e9, attempt, error);
          System.exit(1);
        }
        Thread.sleep(ThreadLocalRandom.current().nextLong(Math.min(100L << Math.min(attempt, 5), 2000)));
      }
    }
  }
}
